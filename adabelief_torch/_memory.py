"""NumPy arrays on the memory of CPU tensors."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from adabelief_core import as_reals

MOMENTS = ("exp_avg", "exp_avg_var", "max_exp_avg_var")
"""The keys of a parameter's state that moments stand under."""

_PLAIN = (Tensor, torch.nn.Parameter)


def has_memory(x: Tensor) -> bool:
    """Whether the elements of a strided tensor lie in this process's memory, where NumPy can work on them."""
    # A subclass (DTensor, FakeTensor, …) may hold its elements anywhere.
    return type(x) in _PLAIN and x.is_cpu


def as_array(x: Tensor) -> np.ndarray:
    """An array that shares the memory of x. A complex number is a pair of reals on a new last axis."""
    x = x.detach()
    if x.dtype is torch.bfloat16:
        return x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    array = x.numpy()
    return as_reals(array) if x.dtype.is_complex else array


class Arrays:
    """The arrays of parameters and moments, which seldom move: making them costs more than a small tensor's step."""

    def __init__(self) -> None:
        self._known: dict[Tensor, tuple[tuple[object, ...], list[np.ndarray]]] = {}

    def known(self, p: Tensor, state: Mapping[str, Tensor]) -> list[np.ndarray] | None:
        """Arrays of p and of its moments, where all of them still lie as they did when these were made."""
        known = self._known.get(p)
        return known[1] if known is not None and known[0] == _place(p, state) else None

    def make(self, p: Tensor, state: Mapping[str, Tensor]) -> list[np.ndarray]:
        """New arrays of p and of its moments, which have its shape."""
        arrays = [as_array(x) for x in (p, *_moments(state))]
        self._known[p] = _place(p, state), arrays
        return arrays

    def forget(self, p: Tensor) -> None:
        """Let go of the memory that p had."""
        self._known.pop(p, None)


def _moments(state: Mapping[str, Tensor]) -> list[Tensor]:
    return [state[key] for key in MOMENTS if key in state]


def _place(p: Tensor, state: Mapping[str, Tensor]) -> tuple[object, ...]:
    # An array keeps its memory alive, so that no other tensor can come to lie at its address.
    place: list[object] = [p.dtype, p.shape, p.stride(), p.data_ptr()]
    for moment in _moments(state):
        place += moment.data_ptr(), moment.stride()
    return tuple(place)


def overlaps(x: Tensor) -> bool:
    """Whether several elements of x share one memory location, as an expanded tensor's do."""
    return any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)) and x.numel() > 0
