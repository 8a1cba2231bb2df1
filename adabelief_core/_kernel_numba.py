"""The rule in one pass over memory, compiled by numba: the order of `adabelief_core.update`.

A kernel is compiled for each variant, so that no option costs the others a branch. numba contracts
no products unless asked to (fastmath), and `error_model="numpy"` divides by zero as IEEE has it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import numba
import numpy as np

from adabelief_core._hyperparameters import Variant
from adabelief_core._rule import Coefficients


@lru_cache(maxsize=64)
def _kernel(variant: Variant, adaptive: bool) -> Callable[..., None]:
    maximize, amsgrad, nesterov = variant.maximize, variant.amsgrad, variant.nesterov
    coupled, decoupled, fixed = (variant.decay == kind for kind in ("coupled", "decoupled", "fixed"))

    def step(c, p, g, m, s, v):  # type: ignore[no-untyped-def]
        beta1, rest1, beta2, rest2, eps, eps_root, weight_decay, minus_lr, scale, belief_scale, look_ahead, least = c
        zero = least - least
        for i in range(p.size):
            gi = g[i]
            if maximize:
                gi = -gi
            if coupled:
                gi = gi + weight_decay * p[i]
            mi = beta1 * m[i] + rest1 * gi
            if abs(mi) < least:
                mi = zero
            r = gi - mi
            si = (beta2 * s[i] + rest2 * (r * r)) + eps_root
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
                u = look_ahead * mi + rest1 * gi
            if adaptive:
                u = u / (np.sqrt(vi) * belief_scale + eps)
            u = scale * u
            if decoupled:
                u = u + weight_decay * p[i]
            u = minus_lr * u
            if fixed:
                u = u - weight_decay * p[i]
            p[i] = p[i] + u

    compile_step = partial(numba.njit, nogil=True, error_model="numpy")
    kernel: Callable[..., None]
    try:
        kernel = compile_step(cache=True)(step)
    except RuntimeError:  # no folder where numba could write its cache
        kernel = compile_step()(step)
    return kernel


def compiled(c: Coefficients, variant: Variant) -> Callable[..., None]:
    """The step with these numbers, on arrays p, g, m, s, v of any length.

    All but g are overwritten, v under amsgrad.
    """
    return partial(_kernel(variant, bool(c.adaptive)), c[:-1])
