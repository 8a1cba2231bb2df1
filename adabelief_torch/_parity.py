"""What this adapter offers the parity harness: each way that a step can take, on each device here."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from adabelief_core import default_kernel
from adabelief_core.parity import Mode, Problem, State
from adabelief_core.portable import Snapshot
from adabelief_torch._memory import MOMENTS
from adabelief_torch._optimizer import AdaBelief
from adabelief_torch._portable import restore, snapshot, to_array, to_tensor


class _Run:
    def __init__(self, problem: Problem, device: str, compiled: bool, options: Mapping[str, Any]) -> None:
        self._device = device
        self._differentiable = bool(options.get("differentiable"))
        self._params = {name: to_tensor(p, device) for name, p in problem.params().items()}
        for p in self._params.values():
            # Autograd writes into no leaf that requires a gradient.
            p.requires_grad_(not self._differentiable)
        self._optimizer = AdaBelief(list(self._params.values()), lr=problem.h.lr, **options, **problem.options)
        self._step: Callable[[], object] = self._optimizer.step
        if compiled:
            # Without it the compiler gives up after a few problems, and runs the rest eagerly.
            torch.compiler.reset()
            self._step = torch.compile(self._optimizer.step)

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        for name, p in self._params.items():
            p.grad = to_tensor(grads[name], self._device)
        self._step()

    def state(self) -> State:
        state = self._optimizer.state
        m, s, v, k = (
            {name: to_array(state[p][key]) for name, p in self._params.items() if key in state[p]} for key in MOMENTS
        )
        return State({name: to_array(p) for name, p in self._params.items()}, m, s, v or None, k or None)

    def snapshot(self) -> Snapshot:
        return snapshot(self._optimizer, self._params.items())

    def restore(self, taken: Snapshot) -> None:
        restore(self._optimizer, self._params.items(), taken)


class TorchAdapter:
    """`adabelief_torch.AdaBelief`."""

    framework = f"torch {torch.__version__}"

    def modes(self) -> list[Mode]:
        """Each way to take a step that this machine has."""
        modes = [_mode("eager"), _mode("foreach", foreach=True)]
        modes += [_mode("foreach, capturable", foreach=True, capturable=True)]
        modes += [_mode("differentiable", differentiable=True)]
        if default_kernel() == "numba":
            modes.append(_mode("fused", fused=True))
        if any(map(shutil.which, ("g++", "clang++", "cl"))):
            modes.append(_mode("compiled", compiled=True))
        if torch.cuda.is_available():
            modes += [_mode("foreach", "cuda", foreach=True), _mode("single", "cuda", foreach=False)]
            if find_spec("triton"):
                modes += [_mode("fused", "cuda", fused=True), _mode("fused, capturable", "cuda", capturable=True)]
        return modes


def _mode(name: str, device: str = "cpu", *, compiled: bool = False, **options: bool) -> Mode:
    return Mode(name, lambda problem: _Run(problem, device, compiled, options), device=device, slow=compiled)


adapter = TorchAdapter()
