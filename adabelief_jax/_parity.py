"""The modes in which `adabelief parity` and the tests run this adapter."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adabelief_core.parity import Mode, Problem, State
from adabelief_core.portable import Snapshot
from adabelief_jax._portable import optimizer_of, restore, snapshot


class _Run:
    def __init__(self, problem: Problem, device: jax.Device, compiled: bool) -> None:
        h = self._h = problem.h
        optimizer = optimizer_of(h)

        def step(grads: Any, params: Any, state: Any) -> Any:
            # Optax ascends by negating outside.
            if h.maximize:
                grads = jax.tree.map(jnp.negative, grads)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        self._step = jax.jit(step) if compiled else step
        self._device, self._wide = device, problem.dtype == "float64"
        with self._context():
            self._params = self._put(problem.params())
            self._state = self._put(optimizer.init(self._params))

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        with self._context():
            self._params, self._state = self._step(self._put(grads), self._params, self._state)

    def state(self) -> State:
        belief = self._state[0]
        trees = (self._params, belief.mu, belief.nu, belief.nu_max, belief.kahan_comp)
        return State(*(tree and {name: np.asarray(x) for name, x in tree.items()} for tree in trees))

    def snapshot(self) -> Snapshot:
        return snapshot(self._state, self._params, hyperparameters=self._h)

    def restore(self, taken: Snapshot) -> None:
        with self._context():
            self._state, self._params = map(self._put, restore(self._state, self._params, taken))

    def _context(self) -> AbstractContextManager[Any]:
        return jax.enable_x64(True) if self._wide else nullcontext()

    def _put(self, tree: Any) -> Any:
        # Committed to the device, as what a step returns is: otherwise each function is compiled twice.
        return jax.device_put(tree, self._device)


class OptaxAdapter:
    """`adabelief_jax.adabelief` with `optax.apply_updates`, op by op and under `jit`."""

    framework = f"optax {optax.__version__} (jax {jax.__version__})"

    def modes(self) -> list[Mode]:
        """Both on the CPU, and on a GPU where JAX has one."""
        modes = []
        for device, backend, ulps, reason in (
            ("cpu", "cpu", 0, ""),
            ("gpu", "cuda", 4, "XLA divides and takes roots to a few ulps there"),
        ):
            try:
                first = jax.local_devices(backend=backend)[0]
            except RuntimeError:  # how JAX says that it has no such backend
                continue
            for name, compiled in (("op by op", False), ("jit", True)):
                start = partial(_Run, device=first, compiled=compiled)
                modes.append(Mode(name, start, device, ulps=ulps, reason=reason, rounds_update=True, slow=compiled))
        return modes


adapter = OptaxAdapter()
