"""The child process of `adabelief parity`."""

import json
import os
import sys

from adabelief_core.parity._process import run_child

# Frameworks that print must not print between the rows.
rows = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
with rows:
    status = run_child(json.loads(sys.argv[1]), rows)
sys.exit(status)
