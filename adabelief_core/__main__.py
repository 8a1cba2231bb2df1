"""`python -m adabelief_core`: the command line."""

import sys

from adabelief_core._cli import main

sys.exit(main())
