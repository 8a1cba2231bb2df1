"""The examples are no installed package: they are imported from the root of the repository, as `python -m` does."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
