"""The benchmarks are no installed package: they import each other from their own folder, where scripts are."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
