"""`python -m examples.image_classification`."""

import sys

from examples.harness import main
from examples.image_classification.experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
