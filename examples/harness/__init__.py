"""What the experiments share: rivals, tuning, runs that can be interrupted, and one CSV, figure and table each."""

from examples.harness._cli import main
from examples.harness._experiment import DataError, Experiment, Settings
from examples.harness._figure import COLORS
from examples.harness._runs import commit, versions
from examples.harness.optimizers import RIVALS, Rival

__all__ = ["COLORS", "RIVALS", "DataError", "Experiment", "Rival", "Settings", "commit", "main", "versions"]
