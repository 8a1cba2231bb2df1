"""A step on the tensors of any backend: plan its scalars once, then run the rule on each variable."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

from keras import ops

from adabelief_core import Coefficients, Hyperparameters, Variant, coefficients, compensated, update


class Step(NamedTuple):
    """What all variables of one compute dtype share at a step."""

    coefficients: Coefficients
    variant: Variant
    zero: Any = None
    """A -0.0 whose value XLA cannot know: it guards products, for fma(a, b, -0.0) is the rounded product."""
    always: Any = None
    """A True whose value XLA cannot know: it makes s too dear to compute twice, with a √ that never runs."""


def host_step(h: Hyperparameters, iterations: Any, learning_rate: Any, dtype: str) -> Step:
    """The step whose number the host knows, in eager execution."""
    return Step(coefficients(h, int(iterations) + 1, dtype, float(learning_rate)), h.variant)


class TensorSteps:
    """Mixin of `AdaBelief`: `update_step` in tensor operations; a subclass per backend gives `_step`."""

    _namespace: Any = ops

    @staticmethod
    def _tensor(x: Any, dtype: str) -> Any:
        """A variable or tensor as the rule takes it."""
        return ops.cast(x, dtype)

    def _beside(self, variable: Any) -> AbstractContextManager[Any]:
        """Where new state of a variable is placed."""
        return nullcontext()

    @staticmethod
    def _fits(gradient: Any, variable: Any) -> bool:
        return tuple(gradient.shape) == tuple(variable.shape)

    @staticmethod
    def _apart(x: Any) -> Any:
        """x, as it is computed where no compiler is at work."""
        return x

    @staticmethod
    def _narrowed(x: Any, dtype: str, step: Step) -> Any:
        """x rounded to the variable's dtype.

        XLA drops a cast to half precision and back on GPUs. It does not drop one that passes through integers
        and a 0 that it does not know.
        """
        return ops.cast(x, dtype)

    def _step(self, h: Hyperparameters, iterations: Any, learning_rate: Any, dtype: str) -> Step:
        raise NotImplementedError

    def _plan(self: Any, learning_rate: Any) -> dict[str, Step]:
        """Compute dtype to step."""
        h, iterations = self._hyperparameters(), self.iterations
        for option, state in (("amsgrad", "_max_beliefs"), ("kahan_sum", "_kahan_comps")):
            if getattr(self, option) and not hasattr(self, state):
                raise ValueError(f"Invalid {option}: True (the optimizer was built without it)")
        dtypes = sorted({m.dtype for m in self._momentums if m is not None})
        return {dtype: self._step(h, iterations, learning_rate, dtype) for dtype in dtypes}

    def _backend_update_step(self: Any, grads: Any, trainable_variables: Any, learning_rate: Any) -> None:
        # The plan takes the learning rate's place, so that it reaches `update_step` by every way that
        # Keras has (tf.distribute copies it to the replicas).
        plan = self._plan(learning_rate)
        super()._backend_update_step(grads, trainable_variables, plan)  # type: ignore[misc]

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update one variable and its state.

        Args:
            gradient: Its gradient, of its shape.
            variable: A variable that the optimizer was built with.
            learning_rate: The learning rate: a number, a tensor or a variable.
        """
        plan = learning_rate if isinstance(learning_rate, dict) else self._plan(learning_rate)
        index = self._get_variable_index(variable)
        m, s = self._momentums[index], self._beliefs[index]
        v = self._max_beliefs[index] if self.amsgrad else s
        dtype = m.dtype
        step = plan[dtype]
        narrowed = partial(self._narrowed, dtype=variable.dtype, step=step)
        p, *rest = (self._tensor(x, dtype) for x in (variable, gradient, m, s, v))
        delta, *state = update(  # type: ignore[misc]
            p,
            *rest,
            step.coefficients,
            self._variant(step.variant, index),
            xp=self._namespace,
            product=self._apart if step.zero is None else lambda x: x + step.zero,
            kept=self._apart if step.always is None else lambda s: ops.where(step.always, s, ops.sqrt(s)),
        )
        for target, value in zip((m, s, v) if self.amsgrad else (m, s), state, strict=False):
            self.assign(target, value)
        if step.variant.kahan:
            comp = self._kahan_comps[index]
            delta, k = compensated(p, delta, self._tensor(comp, dtype), stored=lambda x: ops.cast(narrowed(x), dtype))
            self.assign(comp, k)
        self.assign(variable, narrowed(p + delta))

    def _variant(self: Any, variant: Variant, index: int) -> Variant:
        """The lines that run for a variable: no decay for one that is excluded from it."""
        if variant.decay == "none" or self._use_weight_decay(self._trainable_variables[index]):
            return variant
        return variant._replace(decay="none")
