"""The child process of `adabelief parity`."""

import json
import sys

from adabelief_core.parity._process import run_child

sys.exit(run_child(json.loads(sys.argv[1])))
