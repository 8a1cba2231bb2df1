"""The readable rule at work on a problem: what every adapter is compared with."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from adabelief_core._inplace import as_reals, compute_dtype
from adabelief_core._rule import coefficients, update
from adabelief_core.parity._adapter import State
from adabelief_core.parity._problems import Problem


class Reference:
    """`adabelief_core.update` on each parameter by itself, with nothing of the optimizers around it.

    Args:
        problem: What to run.
        rounds_update: Round Δ to the gradient's dtype before it is added, as Optax does.
    """

    def __init__(self, problem: Problem, *, rounds_update: bool = False) -> None:
        self._h, self._rounds_update, self._step = problem.h, rounds_update, 0
        self._p = {name: as_reals(p.copy()) for name, p in problem.params().items()}
        self._complex = {name for name, p in problem.params().items() if p.dtype.kind == "c"}
        zeros = {name: np.zeros(p.shape, compute_dtype(p.dtype)) for name, p in self._p.items()}
        self._m, self._s, self._v = dict(zeros), dict(zeros), dict(zeros)

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        """Take one step."""
        self._step += 1
        dtypes = {m.dtype for m in self._m.values()}
        known = {dtype: coefficients(self._h, self._step, dtype) for dtype in dtypes}
        for name, p in self._p.items():
            m, s, v = self._m[name], self._s[name], self._v[name]
            g = as_reals(grads[name])
            with np.errstate(all="ignore"):
                wide = p.astype(m.dtype)
                delta, *state = update(wide, g.astype(m.dtype), m, s, v, known[m.dtype], self._h.variant)
                if self._rounds_update:
                    delta = delta.astype(g.dtype).astype(m.dtype)
                self._p[name] = (wide + delta).astype(p.dtype)
            self._m[name], self._s[name], self._v[name] = state

    def state(self) -> State:
        """The parameters and moments now."""
        p, m, s, v = (
            {name: self._joined(name, x) for name, x in xs.items()} for xs in (self._p, self._m, self._s, self._v)
        )
        return State(p, m, s, v if self._h.amsgrad else None)

    def _joined(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in self._complex:
            return np.asarray(x)
        return np.ascontiguousarray(x).view(np.result_type(x.dtype, np.complex64))[..., 0]
