"""The adapter's modes for the parity harness: those of the active backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import keras
import numpy as np
from keras import ops

from adabelief_core import spelt
from adabelief_core.parity import DTYPES, Mode, Problem, State
from adabelief_core.portable import Snapshot
from adabelief_tf._optimizer import SPELLING, AdaBelief
from adabelief_tf._portable import restore, snapshot

Apply = Callable[[list[Any]], None]


class _Run:
    def __init__(self, problem: Problem, prepare: Callable[[AdaBelief], Apply]) -> None:
        self._double = problem.dtype == "float64"
        with self._precision():
            self._variables = {
                name: keras.Variable(p, dtype=problem.dtype, name=name) for name, p in problem.params().items()
            }
            self._optimizer = AdaBelief(problem.h.lr, **spelt(problem.options, SPELLING))
            self._optimizer.build(list(self._variables.values()))
            self._step = prepare(self._optimizer)

    def _precision(self) -> AbstractContextManager[Any]:
        """JAX has float64 only where it is asked for."""
        if keras.backend.backend() == "jax" and self._double:
            import jax

            return jax.enable_x64(True)
        return nullcontext()

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        with self._precision():
            self._step([ops.convert_to_tensor(grads[name], v.dtype) for name, v in self._variables.items()])

    def state(self) -> State:
        optimizer = self._optimizer

        def arrays(variables: Sequence[Any]) -> dict[str, np.ndarray]:
            return {name: ops.convert_to_numpy(x.value) for name, x in zip(self._variables, variables, strict=True)}

        return State(
            arrays(list(self._variables.values())),
            arrays(optimizer._momentums),
            arrays(optimizer._beliefs),
            arrays(optimizer._max_beliefs) if optimizer.amsgrad else None,
            arrays(optimizer._kahan_comps) if optimizer.kahan_sum else None,
        )

    def snapshot(self) -> Snapshot:
        with self._precision():
            return snapshot(self._optimizer, self._variables)

    def restore(self, taken: Snapshot) -> None:
        with self._precision():
            restore(self._optimizer, self._variables, taken)


def _eager(optimizer: AdaBelief) -> Apply:
    return optimizer.apply


def _graph(jit_compile: bool) -> Callable[[AdaBelief], Apply]:
    import tensorflow as tf

    return lambda optimizer: tf.function(optimizer.apply, jit_compile=jit_compile)


def _stateless(optimizer: AdaBelief) -> Apply:
    """`stateless_apply` under `jax.jit`, as Keras' own trainer has it."""
    import jax

    apply = jax.jit(optimizer.stateless_apply)

    def step(grads: list[Any]) -> None:
        variables, state = optimizer._trainable_variables, optimizer.variables
        new = apply([x.value for x in state], grads, [x.value for x in variables])
        for targets, values in zip((variables, state), new, strict=True):
            for target, value in zip(targets, values, strict=True):
                target.assign(value)

    return step


class KerasAdapter:
    """`adabelief_tf.AdaBelief` on the active backend."""

    framework = f"keras {keras.__version__} on {keras.backend.backend()}"

    def modes(self) -> list[Mode]:
        """Eager everywhere; graph and jit on TensorFlow, jit on JAX."""
        backend = keras.backend.backend()
        prepare: dict[str, Callable[[AdaBelief], Apply]] = {"eager": _eager}
        if backend == "tensorflow":
            prepare |= {"graph": _graph(False), "jit": _graph(True)}
        elif backend == "jax":
            prepare["jit"] = _stateless
        # Keras has no complex variables.
        dtypes = [dtype for dtype in DTYPES if dtype != "complex64"]
        return [
            Mode(name, lambda problem, how=how: _Run(problem, how), dtypes=dtypes, slow=name == "jit")  # type: ignore[misc]
            for name, how in prepare.items()
        ]


adapter = KerasAdapter()
