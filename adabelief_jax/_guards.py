"""What keeps XLA from rounding otherwise than the rule does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Guards(NamedTuple):
    """The `product` and `kept` of `adabelief_core.update`.

    Both lean on the state's step count, which is never negative, as XLA cannot know while it is data: an
    argument of the jitted function, or carried by a loop.
    """

    product: Callable[[Any], Any]
    """Adds -0.0, which changes nothing: XLA's contraction of a×b + c then rounds a×b by itself."""
    kept: Callable[[Any], Any]
    """Makes s dear to compute twice, so that XLA reads it back: without that it keeps a copy of the old s."""

    @classmethod
    def of(cls, count: Any, dtype: Any) -> Guards:
        """The guards for arrays of one dtype.

        Args:
            count: Step count, int32.
            dtype: Their dtype.
        """
        minus_zero = -jnp.minimum(count, 0).astype(dtype)
        real = count >= 0
        return cls(
            lambda x: x + minus_zero,
            # The other branch is never taken; a gradient through it could be 0 × ∞.
            lambda s: jnp.where(real, s, jnp.sqrt(jax.lax.stop_gradient(s))),
        )


class Namespace:
    """What the rule calls of `jax.numpy`."""

    abs = staticmethod(jnp.abs)
    maximum = staticmethod(jnp.maximum)
    ones_like = staticmethod(jnp.ones_like)
    sqrt = staticmethod(jnp.sqrt)
    where = staticmethod(jnp.where)

    @staticmethod
    def zeros_like(x: Any) -> Any:
        """Zeros that keep x's derivative: what differentiates a step must get through a first moment of 0."""
        return x - jax.lax.stop_gradient(x)
