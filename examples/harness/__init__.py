"""What the experiments share: rivals, tuning, runs that can be interrupted, and one CSV, figure and table each."""

from examples.harness._cli import main
from examples.harness._experiment import DataError, Experiment, Settings
from examples.harness.optimizers import RIVALS, Rival

__all__ = ["RIVALS", "DataError", "Experiment", "Rival", "Settings", "main"]
