"""β^t and 1 - β^t, looked up byte by byte: the bits of the core's walk, of which XLA has far less to compile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from jax import lax

from adabelief_core import tables
from adabelief_core._scalars import plain_product, power_and_complement

_BYTES = np.arange(4, dtype=np.int32)[:, None]
_ROWS = lax.GatherDimensionNumbers(offset_dims=(1,), collapsed_slice_dims=(0,), start_index_map=(0,))


def powers(step: Any, betas: tuple[float, float], product: Callable[[Any], Any]) -> tuple[Any, Any]:
    """(β1^t, 1 - β1^t) and (β2^t, 1 - β2^t), float64.

    In `lax`'s operations: those of `jax.numpy` are functions, each to be traced by itself.

    Args:
        step: t, an int32 scalar, 1 <= t <= `adabelief_core.LAST_STEP`.
        betas: (β1, β2).
        product: Guard of products that feed a sum; see `adabelief_core.update`.
    """
    byte = lax.bitwise_and(lax.shift_right_logical(lax.broadcast(step, (4, 1)), 8 * _BYTES), np.full_like(_BYTES, 255))
    rows = lax.gather(_table(betas), lax.add(byte, 256 * _BYTES), _ROWS, (1, 4), mode="promise_in_bounds")

    def combined(low: Sequence[Any], high: Sequence[Any]) -> tuple[Any, Any]:
        return lax.mul(low[0], high[0]), lax.add(low[1], product(lax.mul(low[0], high[1])))

    # Neighbours first, as the core has it; each is an array of both betas.
    first, second, third, fourth = ([lax.slice(rows, (i, j), (i + 1, j + 2)) for j in (0, 2)] for i in range(4))
    both = combined(combined(first, second), combined(third, fourth))
    of_beta1, of_beta2 = ([lax.squeeze(lax.slice(x, (0, i), (1, i + 1)), (0, 1)) for x in both] for i in range(2))
    return of_beta1, of_beta2


@lru_cache(maxsize=256)
def _table(betas: tuple[float, float]) -> np.ndarray:
    """What the core's walk makes of each value of each byte: two powers and two complements, float64, (1024, 4)."""
    steps = (np.arange(256) * 256.0**_BYTES).ravel()
    known = tables(betas)
    columns = ((row[0][:, None], row[1][:, None]) for row in known[:2])
    pairs = [power_and_complement(steps, row, np, plain_product, known.place[:, None]) for row in columns]
    return np.array(pairs).transpose(2, 1, 0).reshape(1024, 4)
