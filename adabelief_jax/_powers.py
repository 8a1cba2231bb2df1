"""β^t and 1 - β^t from a table of digits: the bits of the core's walk, of which XLA compiles a third as much."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np

from adabelief_core import tables
from adabelief_core._scalars import plain_product, power_and_complement

# The core combines bits 16 apart, then 8 apart: bits i, i + 8, i + 16 and i + 24 are the digit of place i.
_PLACES = np.arange(8, dtype=np.int32)
_SHIFTS = np.arange(4, dtype=np.int32)


def powers(step: Any, betas: tuple[float, float], product: Callable[[Any], Any]) -> tuple[Any, Any]:
    """(β1^t, 1 - β1^t) and (β2^t, 1 - β2^t), float64.

    Args:
        step: t, an int32 scalar, 1 <= t <= `adabelief_core.LAST_STEP`.
        betas: (β1, β2).
        product: Guard of products that feed a sum; see `adabelief_core.update`.
    """
    bits = (step >> (_PLACES[:, None] + 8 * _SHIFTS)) & 1
    index = (_PLACES << 4) + (bits << _SHIFTS).sum(1, dtype=jnp.int32)
    rows = jnp.asarray(_digits(betas)).at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
    power, complement = rows[:, 0], rows[:, 1]
    n = len(_PLACES)
    while n > 1:
        n //= 2
        complement = complement[:n] + product(power[:n] * complement[n:])
        power = power[:n] * power[n:]
    return (power[0, 0], complement[0, 0]), (power[0, 1], complement[0, 1])


@lru_cache(maxsize=256)
def _digits(betas: tuple[float, float]) -> np.ndarray:
    """What the core's walk makes of each digit at each place: float64, (128, power or complement, beta)."""
    bits = (np.arange(16)[:, None] >> _SHIFTS) & 1
    steps = (bits @ (2.0 ** (_PLACES + 8 * _SHIFTS[:, None]))).T.ravel()
    table = tables(betas)
    columns = ((row[0][:, None], row[1][:, None]) for row in table[:2])
    return np.array([power_and_complement(steps, row, np, plain_product, table.place[:, None]) for row in columns]).T
