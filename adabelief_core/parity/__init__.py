"""Does a framework take the same steps, bit for bit? One harness for every adapter.

An adapter is found through the entry-point group `adabelief.adapters` and offers its `Mode`s; `check`
runs one of them over one `Problem` and compares every parameter and moment, at every step, with the
readable rule. `adabelief parity` prints the table for this machine.
"""

from adabelief_core.parity._adapter import Adapter, Mode, Run, State
from adabelief_core.parity._compare import Difference, compare
from adabelief_core.parity._harness import Result, check, differences
from adabelief_core.parity._paper import paper
from adabelief_core.parity._problems import DTYPES, Problem, covering, quick
from adabelief_core.parity._reference import Reference

__all__ = [
    "DTYPES",
    "Adapter",
    "Difference",
    "Mode",
    "Problem",
    "Reference",
    "Result",
    "Run",
    "State",
    "check",
    "compare",
    "covering",
    "differences",
    "paper",
    "quick",
]
