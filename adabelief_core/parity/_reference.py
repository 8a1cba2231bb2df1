"""The readable rule at work on a problem: what every adapter is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from adabelief_core._inplace import as_reals, compute_dtype
from adabelief_core._rule import coefficients, compensated, update
from adabelief_core.parity._adapter import State
from adabelief_core.parity._problems import Problem


class Reference:
    """`adabelief_core.update` on each parameter by itself, with nothing of the optimizers around it.

    Args:
        problem: What to run.
        rounds_update: Round Δ to the gradient's dtype before it is added, as Optax does; free to change between steps.
    """

    def __init__(self, problem: Problem, *, rounds_update: bool = False) -> None:
        self._h, self.rounds_update, self._step = problem.h, rounds_update, 0
        self._p = {name: as_reals(p.copy()) for name, p in problem.params().items()}
        self._complex = {name for name, p in problem.params().items() if p.dtype.kind == "c"}
        zeros = {name: np.zeros(p.shape, compute_dtype(p.dtype)) for name, p in self._p.items()}
        self._m, self._s, self._v, self._k = (dict(zeros) for _ in range(4))

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
                sent = self._rounded(g.dtype if self.rounds_update else m.dtype)
                if self._h.kahan_sum:
                    stored = self._rounded(p.dtype)
                    delta, self._k[name] = compensated(wide, delta, self._k[name], stored=stored, sent=sent)
                else:
                    delta = sent(delta)
                self._p[name] = (wide + delta).astype(p.dtype)
            self._m[name], self._s[name], self._v[name] = state

    def state(self) -> State:
        """The parameters and moments now."""
        p, m, s, v, k = (
            {name: self._joined(name, x) for name, x in xs.items()}
            for xs in (self._p, self._m, self._s, self._v, self._k)
        )
        return State(p, m, s, v if self._h.amsgrad else None, k if self._h.kahan_sum else None)

    @staticmethod
    def _rounded(dtype: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
        return lambda x: x.astype(dtype).astype(x.dtype)

    def _joined(self, name: str, x: np.ndarray) -> np.ndarray:
        if name not in self._complex:
            return np.asarray(x)
        return np.ascontiguousarray(x).view(np.result_type(x.dtype, np.complex64))[..., 0]
