"""What the optimizer does in JAX's own way."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from keras import ops

from adabelief_core import LAST_STEP, Hyperparameters, assemble, step_scalars
from adabelief_tf._tensors import Step, TensorSteps


class Backend(TensorSteps):
    """Eager steps take their scalars from the host; traced ones compute them in float64 tensors."""

    @staticmethod
    def _dense(gradient: Any, variable: Any) -> Any:
        """The gradient as a dense tensor."""
        return ops.convert_to_tensor(gradient, sparse=False)

    @staticmethod
    def _narrowed(x: Any, dtype: str, step: Step) -> Any:
        x = ops.cast(x, dtype)
        if step.always is None or x.dtype.itemsize > 2:
            return x
        bits = lax.bitcast_convert_type(x, jnp.uint16) | (~step.always).astype(jnp.uint16)
        return lax.bitcast_convert_type(bits, x.dtype)

    def _step(self, h: Hyperparameters, iterations: Any, learning_rate: Any, dtype: str) -> Step:
        count = ops.convert_to_tensor(iterations)
        rate = learning_rate if isinstance(learning_rate, float) else ops.convert_to_tensor(learning_rate)
        if not isinstance(count, jax.core.Tracer) and not isinstance(rate, jax.core.Tracer):
            return self._host_step(h, count, rate, dtype)

        with jax.enable_x64(True):
            t = jnp.minimum(count.astype(jnp.float64) + 1.0, float(LAST_STEP))
            zero = -jnp.minimum(count, 0).astype(jnp.float64)
            scalars = step_scalars(t, h, known=self._tables(h), xp=jnp, product=lambda x: x + zero)

            def cast(x: Any) -> Any:
                return jnp.asarray(x, dtype)

            return Step(assemble(h, scalars, rate, dtype, cast), h.variant, cast(zero), count >= 0)
