"""What keeps XLA from rounding otherwise than the rule does."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class Guards(NamedTuple):
    """The `product` and `kept` of `adabelief_core.update`, and the roundings of `adabelief_core.compensated`.

    All lean on the state's step count, which is never negative, as XLA cannot know while it is data: an
    argument of the jitted function, or carried by a loop.
    """

    product: Callable[[Any], Any]
    """Adds -0.0, which changes nothing: XLA's contraction of a×b + c then rounds a×b by itself."""
    kept: Callable[[Any], Any]
    """Makes s dear to compute twice, so that XLA reads it back: without that it keeps a copy of the old s."""
    rounded: Callable[[Any], Callable[[Any], Any]]
    """Of a dtype: rounds to it and back. XLA drops a pair of conversions, but not one that passes through integers."""

    @classmethod
    def of(cls, count: Any, dtype: Any) -> Guards:
        """The guards for arrays of one dtype.

        Args:
            count: Step count, int32.
            dtype: Their dtype.
        """
        zero = np.int32(0)
        minus_zero = lax.neg(lax.convert_element_type(lax.min(count, zero), dtype))
        real = lax.ge(count, zero)
        return cls(
            lambda x: lax.add(x, minus_zero),
            # The other branch is never taken; a gradient through it could be 0 × ∞.
            lambda s: lax.select(real, s, lax.sqrt(lax.stop_gradient(s))),
            lambda narrow: lambda x: x if x.dtype == narrow else _rounded(x, count, np.dtype(narrow)),
        )


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _rounded(x: Any, count: Any, narrow: np.dtype) -> Any:
    integer = np.dtype(f"u{narrow.itemsize}")
    # Or'ing with a 0 that XLA does not know. `reduce_precision` would lose float16's subnormal numbers.
    bits = lax.bitcast_convert_type(x.astype(narrow), integer) | jnp.minimum(count, 0).astype(integer)
    return lax.bitcast_convert_type(bits, narrow).astype(x.dtype)


@_rounded.defjvp
def _(narrow: np.dtype, primals: tuple[Any, Any], tangents: tuple[Any, Any]) -> tuple[Any, Any]:
    return _rounded(*primals, narrow), tangents[0]


class Namespace:
    """What the rule calls of `jax.numpy`, as `lax` has it: no jitted functions to trace for each shape."""

    abs = staticmethod(lax.abs)
    maximum = staticmethod(lax.max)
    ones_like = staticmethod(jnp.ones_like)
    sqrt = staticmethod(lax.sqrt)
    where = staticmethod(lax.select)

    @staticmethod
    def clip(x: Any, low: Any, high: Any) -> Any:
        """x within bounds: scalars, by which `lax.clamp` has no derivative before they are arrays."""
        return lax.clamp(lax.full_like(x, low), x, lax.full_like(x, high))

    @staticmethod
    def zeros_like(x: Any) -> Any:
        """Zeros that keep x's derivative: what differentiates a step must get through a first moment of 0."""
        return x - lax.stop_gradient(x)
