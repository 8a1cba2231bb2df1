"""A step on the tensors of any backend: plan its scalars once, then run the rule on each variable."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from adabelief_core import (
    LAST_STEP,
    Coefficients,
    Hyperparameters,
    Tables,
    Variant,
    assemble,
    compensated,
    step_scalars,
    tables,
    update,
)

Schedule: Any = keras.optimizers.schedules.LearningRateSchedule


class Step(NamedTuple):
    """What all variables of one compute dtype share at a step."""

    coefficients: Coefficients
    variant: Variant
    zero: Any = None
    """A -0.0 whose value XLA cannot know: it guards products, for fma(a, b, -0.0) is the rounded product."""
    always: Any = None
    """A True whose value XLA cannot know: it makes s too dear to compute twice, with a √ that never runs."""


class TensorSteps:
    """Mixin of `AdaBelief`: `update_step` in tensor operations; a subclass per backend gives `_step`."""

    _namespace: Any = ops

    @staticmethod
    def _tensor(x: Any, dtype: str) -> Any:
        """A variable or tensor as the rule takes it."""
        return ops.cast(x, dtype)

    @staticmethod
    def _rounded(x: Any, dtype: str) -> Any:
        """A number of the step as the rule takes it."""
        return ops.cast(ops.convert_to_tensor(x), dtype)

    def _beside(self, variable: Any) -> AbstractContextManager[Any]:
        """Where new state of a variable is placed."""
        return nullcontext()

    def _received(self: Any, gradient: Any, variable: Any) -> Any:
        """The gradient, as far as it must be known before a step."""
        return self._dense(gradient, variable)

    @staticmethod
    def _is_complex(gradient: Any) -> bool:
        return "complex" in keras.backend.standardize_dtype(gradient.dtype)

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

    def _host_step(self, h: Hyperparameters, iterations: Any, learning_rate: Any, dtype: str) -> Step:
        """The step whose number the host knows, in eager execution."""
        t = np.float64(min(int(iterations) + 1, LAST_STEP))
        scalars = step_scalars(t, h, known=self._tables(h))
        return Step(assemble(h, scalars, float(learning_rate), dtype, np.dtype(dtype).type), h.variant)

    def _tables(self, h: Hyperparameters) -> Tables:
        """What `step_scalars` walks with."""
        return tables(h.betas)

    def _plan(self: Any, learning_rate: Any) -> dict[str, Step]:
        """Compute dtype to step."""
        h, iterations = self._hyperparameters(), self.iterations
        for option, state in (("amsgrad", "_max_beliefs"), ("kahan_sum", "_kahan_comps")):
            if getattr(self, option) and not hasattr(self, state):
                raise ValueError(f"Invalid {option}: True (the optimizer was built without it)")
        dtypes = sorted({m.dtype for m in self._momentums if m is not None})
        plan = {dtype: self._step(h, iterations, learning_rate, dtype) for dtype in dtypes}
        if isinstance(self.weight_decay, Schedule):
            decay = self.weight_decay(self._iterations)
            for dtype, step in plan.items():
                c = step.coefficients._replace(weight_decay=self._rounded(decay, dtype))
                plan[dtype] = step._replace(coefficients=c)
        return plan

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

        Raises:
            ValueError: The gradient has another shape.
        """
        gradient = self._dense(gradient, variable)
        self._check_shape(gradient, variable)
        plan = learning_rate if isinstance(learning_rate, dict) else self._plan(learning_rate)
        index = self._get_variable_index(variable)
        m, s = self._momentums[index], self._beliefs[index]
        step = plan[m.dtype]
        step = step._replace(variant=self._variant(step.variant, index))
        v = self._max_beliefs[index] if step.variant.amsgrad else None
        k = self._kahan_comps[index] if step.variant.kahan else None
        state = (variable, m, s, v, k)
        for target, value in zip(state, self._advance(step, gradient, *state), strict=True):
            if target is not None:
                self.assign(target, value)

    @classmethod
    def _advance(cls, step: Step, g: Any, p: Any, m: Any, s: Any, v: Any, k: Any) -> tuple[Any, ...]:
        """The new p, m, s, v and k of one variable.

        Args:
            step: Coefficients in m's dtype, and the lines that run for this variable.
            g, p, m, s: Tensors or variables of one shape; m and s of the compute dtype.
            v: Another, or None without amsgrad.
            k: Another, or None without a compensated sum.
        """
        dtype, stored = (keras.backend.standardize_dtype(x.dtype) for x in (m, p))
        narrowed = partial(cls._narrowed, dtype=stored, step=step)
        p, g, m, s, wide_v = (None if x is None else cls._tensor(x, dtype) for x in (p, g, m, s, v))
        delta, m, s, wide_v = update(
            p,
            g,
            m,
            s,
            wide_v,
            step.coefficients,
            step.variant,
            xp=cls._namespace,
            product=cls._apart if step.zero is None else lambda x: x + step.zero,
            kept=cls._apart if step.always is None else lambda s: ops.where(step.always, s, ops.sqrt(s)),
        )
        if step.variant.kahan:
            delta, k = compensated(p, delta, cls._tensor(k, dtype), stored=lambda x: ops.cast(narrowed(x), dtype))
        return narrowed(p + delta), m, s, None if v is None else wide_v, k

    def _variant(self: Any, variant: Variant, index: int) -> Variant:
        """The lines that run for a variable: no decay for one that is excluded from it."""
        if variant.decay == "none" or self._use_weight_decay(self._trainable_variables[index]):
            return variant
        return variant._replace(decay="none")
