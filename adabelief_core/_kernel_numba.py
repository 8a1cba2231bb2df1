"""The rule in one pass over memory, compiled by numba: the order of `adabelief_core.update`.

A kernel is compiled for each variant, so that no option costs the others a branch. numba contracts
no products unless asked to (fastmath), and `error_model="numpy"` divides by zero as IEEE has it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numba
import numpy as np

from adabelief_core._hyperparameters import Variant
from adabelief_core._rule import Coefficients


@lru_cache(maxsize=64)
def _kernel(variant: Variant, adaptive: bool) -> Callable[..., None]:
    maximize, amsgrad, nesterov = variant.maximize, variant.amsgrad, variant.nesterov
    coupled, decoupled, fixed = (variant.decay == kind for kind in ("coupled", "decoupled", "fixed"))

    def step(p, g, m, s, v, c):  # type: ignore[no-untyped-def]
        for i in range(p.size):
            gi = g[i]
            if maximize:
                gi = -gi
            if coupled:
                gi = gi + c[6] * p[i]
            mi = c[0] * m[i] + c[1] * gi
            r = gi - mi
            si = (c[2] * s[i] + c[3] * (r * r)) + c[5]
            m[i] = mi
            s[i] = si
            vi = si
            if amsgrad:
                vi = v[i]
                # Also when s is NaN, as np.maximum has it.
                if not vi >= si:
                    vi = si if vi == vi else vi  # noqa: PLR0124
                v[i] = vi
            u = mi
            if nesterov:
                u = c[10] * mi + c[1] * gi
            if adaptive:
                u = u / (np.sqrt(vi) * c[9] + c[4])
            u = c[8] * u
            if decoupled:
                u = u + c[6] * p[i]
            u = c[7] * u
            if fixed:
                u = u - c[6] * p[i]
            p[i] = p[i] + u

    options = {"nogil": True, "error_model": "numpy"}
    try:
        return numba.njit(cache=True, **options)(step)
    except RuntimeError:  # no folder where numba could write its cache
        return numba.njit(**options)(step)


def compiled(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, s: np.ndarray, v: np.ndarray, c: Coefficients, variant: Variant
) -> None:
    """One step on arrays of any length; p, m, s and (under amsgrad) v are overwritten."""
    _kernel(variant, bool(c.adaptive))(p, g, m, s, v, np.array(c[:-1], p.dtype))
