"""What an adapter tells the harness."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from adabelief_core.parity._problems import DTYPES, Problem
from adabelief_core.portable import Snapshot


@dataclass
class State:
    """What the harness compares: name to array, NumPy, after a step."""

    p: Mapping[str, np.ndarray]
    m: Mapping[str, np.ndarray]
    s: Mapping[str, np.ndarray]
    v: Mapping[str, np.ndarray] | None = None
    """Under amsgrad."""
    k: Mapping[str, np.ndarray] | None = None
    """Under kahan_sum."""


class Run(Protocol):
    """A framework's optimizer at work on one problem."""

    def step(self, grads: Mapping[str, np.ndarray]) -> None:
        """Take one step with these gradients (never changed)."""
        ...

    def state(self) -> State:
        """The parameters and moments now."""
        ...

    def snapshot(self) -> Snapshot:
        """The run, taken out of the framework."""
        ...

    def restore(self, taken: Snapshot) -> None:
        """Go on with a run of the same problem that `snapshot` took out, of this framework or another."""
        ...


@dataclass(frozen=True)
class Mode:
    """A way to execute an adapter's optimizer."""

    name: str
    """"eager", "jit", …"""
    start: Callable[[Problem], Run]
    """Set up the problem's parameters (copies of `problem.params()`) and optimizer."""
    device: str = "cpu"
    dtypes: Sequence[str] = DTYPES
    ulps: int = 0
    """The promise: 0 for the same bits, else the largest difference in ulps."""
    reason: str = ""
    """Why the promise is not bits, or what the mode's bits need."""
    rounds_update: bool = False
    """Optax's convention: the update is rounded to the gradient's dtype before it is added."""
    slow: bool = False
    """Each problem costs a compilation of seconds."""


class Adapter(Protocol):
    """The object an `adabelief.adapters` entry point names."""

    framework: str
    """With its version, as the table shows it."""

    def modes(self) -> Sequence[Mode]:
        """What can run on this machine."""
        ...
