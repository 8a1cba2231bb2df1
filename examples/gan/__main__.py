"""`python -m examples.gan`."""

import sys

from examples.harness import main

from .experiment import EXPERIMENT

if __name__ == "__main__":
    sys.exit(main(EXPERIMENT))
