"""What the optimizer does in TensorFlow's own way."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from tensorflow.python.ops.control_flow_util import GraphOrParentsInXlaContext  # TensorFlow has no public name for it

from adabelief_core import LAST_STEP, Coefficients, Hyperparameters, Variant, assemble, step_scalars
from adabelief_tf._tensors import Step, TensorSteps


def _compiled_by_xla() -> bool:
    """Whether XLA compiles what is traced now."""
    return GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()) or bool(tf.config.optimizer.get_jit())


def _own(variable: Any) -> Any:
    """TensorFlow's variable of this one."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def _apart(x: Any) -> Any:
    """x, from where grappler multiplies and adds in no other order: it knows nothing of this operation.

    It is free: the operation hands its input on.
    """
    return tf.raw_ops.Snapshot(input=x)


LEAST = 2**14
"""Elements from which on a variable's rule is compiled: XLA compiles it for each size, and must win that time back."""


@cache
def _xla_has(device: str) -> bool:
    """Whether XLA compiles for this device: a CPU, unless TensorFlow was built without it, as some of Apple's were."""
    if tf.DeviceSpec.from_string(device).device_type != "CPU":
        return False
    with tf.init_scope(), tf.device(device):
        try:
            tf.function(lambda: tf.zeros([]), jit_compile=True)()
        except tf.errors.OpError:
            return False
    return True


@cache
def _compiled(variant: Variant, dtypes: tuple[Any, ...]) -> Any:
    """`Backend._advance` on flat arrays of these dtypes: one trace for all, which XLA compiles for each size."""

    def advance(numbers: Any, adaptive: Any, zero: Any, always: Any, *given: Any) -> tuple[Any, ...]:
        arrays = iter(given)
        step = Step(Coefficients._make([*tf.unstack(numbers), adaptive]), variant, zero, always)
        return Backend._advance(step, *(None if dtype is None else next(arrays) for dtype in dtypes))

    compute = dtypes[2]
    scalars = [([len(Coefficients._fields) - 1], compute), ([], tf.bool), ([], compute), ([], tf.bool)]
    flat = [([None], dtype) for dtype in dtypes if dtype is not None]
    return tf.function(advance, [tf.TensorSpec(*x) for x in (*scalars, *flat)], jit_compile=True)


class _Namespace:
    """What the rule calls."""

    abs, sqrt, where = tf.abs, tf.sqrt, tf.where

    @staticmethod
    def ones_like(x: Any) -> Any:
        return tf.ones([], x.dtype)  # `where` broadcasts it, without a pass over memory

    @staticmethod
    def zeros_like(x: Any) -> Any:
        return tf.zeros([], x.dtype)

    @staticmethod
    def maximum(v: Any, s: Any) -> Any:
        # XLA's own maximum loses NaN on CPUs (its fast min and max). A NaN in s stays there, so this one keeps it in v.
        return tf.where(v >= s, v, s)

    @staticmethod
    def clip(x: Any, low: Any, high: Any) -> Any:
        # Likewise: a NaN passes through comparisons.
        return tf.where(x > high, high, tf.where(x < low, low, x))


class Backend(TensorSteps):
    """Eager steps take their scalars from the host; graphs compute them in float64 tensors.

    Keras has no graph compiled on a machine without a GPU, and each of TensorFlow's operations is a pass over memory.
    There XLA compiles the rule alone, for the variables where that pays.
    """

    _namespace = _Namespace

    def _beside(self: Any, variable: Any) -> AbstractContextManager[Any]:
        """Place new variables on the devices of this one."""
        return self._distribution_strategy.extended.colocate_vars_with(_own(variable))

    @classmethod
    def _advance(cls, step: Step, g: Any, p: Any, *state: Any) -> tuple[Any, ...]:
        if tf.executing_eagerly() or _compiled_by_xla():
            return super()._advance(step, g, p, *state)
        if math.prod(p.shape) < LEAST or not _xla_has(_own(p).device):
            return super()._advance(step._replace(zero=None, always=None), g, p, *state)
        arrays = [None if x is None else tf.convert_to_tensor(x) for x in (g, p, *state)]
        *numbers, adaptive = step.coefficients
        compiled = _compiled(step.variant, tuple(None if x is None else x.dtype for x in arrays))
        flat = (tf.reshape(x, [-1]) for x in arrays if x is not None)
        new = compiled(tf.stack(numbers), tf.convert_to_tensor(adaptive), step.zero, step.always, *flat)
        return tuple(None if x is None else tf.reshape(x, p.shape) for x in new)

    @staticmethod
    def _apart(x: Any) -> Any:
        return x if tf.executing_eagerly() else _apart(x)

    @staticmethod
    def _narrowed(x: Any, dtype: str, step: Step) -> Any:
        x = tf.cast(x, dtype)
        if step.always is None or x.dtype.size > 2:
            return x
        bits = tf.bitwise.bitwise_or(tf.bitcast(x, tf.uint16), tf.cast(~step.always, tf.uint16))
        return tf.bitcast(bits, dtype)

    @staticmethod
    def _dense(gradient: Any, variable: Any) -> Any:
        """The gradient as a dense tensor; repeated indices of `tf.IndexedSlices` add up."""
        if isinstance(gradient, tf.SparseTensor):
            return tf.sparse.to_dense(gradient)
        if isinstance(gradient, tf.IndexedSlices):
            return tf.math.unsorted_segment_sum(gradient.values, gradient.indices, variable.shape[0])
        return tf.convert_to_tensor(gradient)

    def _received(self: Any, gradient: Any, variable: Any) -> Any:
        """The gradient; slices stay slices, so that replicas exchange no more than them."""
        if not isinstance(gradient, tf.IndexedSlices):
            return self._dense(gradient, variable)
        rows, indices = tf.convert_to_tensor(gradient.values), tf.convert_to_tensor(gradient.indices)
        shape = np.array([variable.shape[0], *rows.shape[1:]], np.int64)
        return tf.IndexedSlices(rows, indices, tf.constant(shape))

    @staticmethod
    def _fits(gradient: Any, variable: Any) -> bool:
        return gradient.shape.is_compatible_with(variable.shape)

    @staticmethod
    def _tensor(x: Any, dtype: str) -> Any:
        # Grappler sums numbers in an order of its own, arrays and numbers apart: a number is an array of one here.
        x = ops.cast(x, dtype)
        return x if x.shape.rank or tf.executing_eagerly() else tf.expand_dims(x, 0)

    def assign(self: Any, variable: Any, value: Any) -> None:
        """Assign a value of `update_step` to a variable."""
        super().assign(variable, value if len(variable.shape) else tf.reshape(value, []))  # type: ignore[misc]

    def _step(self, h: Hyperparameters, iterations: Any, learning_rate: Any, dtype: str) -> Step:
        if tf.executing_eagerly():
            # Of replicas, each has its own.
            count, rate = (x if isinstance(x, float) else tf.convert_to_tensor(x) for x in (iterations, learning_rate))
            step = self._host_step(h, count, rate, dtype)
            *numbers, adaptive = step.coefficients
            return step._replace(coefficients=Coefficients._make([*tf.unstack(tf.constant(numbers, dtype)), adaptive]))

        count, compiled = tf.convert_to_tensor(iterations), _compiled_by_xla()
        # Not one float32 tensor on the way: Python's numbers become float64 directly.
        t = tf.minimum(tf.cast(count, tf.float64) + 1.0, float(LAST_STEP))
        zero = -tf.cast(tf.minimum(count, 0), tf.float64)
        scalars = step_scalars(
            t, h, known=self._tables(h), xp=ops, product=(lambda x: x + zero) if compiled else _apart
        )
        rate = learning_rate if isinstance(learning_rate, float) else tf.cast(learning_rate, tf.float64)

        def cast(x: Any) -> Any:
            return tf.cast(x, dtype) if tf.is_tensor(x) else tf.constant(np.dtype(dtype).type(x))

        return Step(assemble(h, scalars, rate, dtype, cast), h.variant, cast(zero), count >= 0)
