"""The core's own modes: its optimizer with each of its kernels."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec

import numpy as np

from adabelief_core._inplace import Kernel
from adabelief_core._optimizer import AdaBelief
from adabelief_core.parity._adapter import Mode, State
from adabelief_core.parity._problems import DTYPES, Problem
from adabelief_core.portable import Snapshot, restore, snapshot


class _Run:
    def __init__(self, problem: Problem, kernel: Kernel) -> None:
        self._params = problem.params()
        self._optimizer = AdaBelief(self._params, problem.lr, kernel=kernel, **problem.options)

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        self._optimizer.step(grads)

    def state(self) -> State:
        state = self._optimizer.state
        m, s, v, k = ({name: vars(x)[key] for name, x in state.items() if vars(x)[key] is not None} for key in "msvk")
        return State(self._params, m, s, v or None, k or None)

    def snapshot(self) -> Snapshot:
        return snapshot(self._optimizer)

    def restore(self, taken: Snapshot) -> None:
        restore(self._optimizer, taken)


class NumPyAdapter:
    """The reference optimizer, run by each kernel."""

    framework = f"numpy {np.__version__}"

    def modes(self) -> list[Mode]:
        """Readable, blocked, and numba where it is installed; bfloat16 where ml_dtypes is."""
        dtypes = [dtype for dtype in DTYPES if dtype != "bfloat16" or find_spec("ml_dtypes")]
        kernels: list[tuple[str, Kernel]] = [("readable", "readable"), ("blocked", "numpy")]
        if find_spec("numba"):
            kernels.append(("numba", "numba"))
        return [
            Mode(name, lambda problem, kernel=kernel: _Run(problem, kernel), dtypes=dtypes)  # type: ignore[misc]
            for name, kernel in kernels
        ]


adapter = NumPyAdapter()
