"""Run by `nox -s alone`: with one extra installed, its adapter has the bits, and the others are named as missing.

Usage: python alone.py none|torch|tf|jax
"""

import re
import subprocess
import sys

ADAPTERS = {
    "none": {"numpy"},
    "torch": {"numpy", "torch"},
    "tf": {"numpy", "keras/tensorflow"},
    "jax": {"numpy", "optax"},
}
ALL = {"numpy", "torch", "optax", "keras/tensorflow", "keras/jax", "keras/torch"}

extra = sys.argv[1]
command = [sys.executable, "-m", "adabelief_core", "parity", "--dtype", "float32", "--dtype", "float16"]
done = subprocess.run(command, capture_output=True, text=True, check=False)
sys.stdout.write(done.stdout + done.stderr)
assert done.returncode == 0, f"exit status {done.returncode}"
missing = set(re.findall(r"^(\S+) .*not installed", done.stdout, re.MULTILINE))
assert missing == ALL - ADAPTERS[extra], missing
assert re.search(r"^numpy .*float32.*ok$", done.stdout, re.MULTILINE)
