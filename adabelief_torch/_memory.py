"""NumPy arrays on the memory of CPU tensors."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from adabelief_core import as_reals

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

    def of(self, p: Tensor, *moments: Tensor) -> list[np.ndarray]:
        """Arrays of p and of its moments, which have its shape."""
        # An array made for this address, dtype, shape and strides is right for any tensor that has them now.
        place = (p.dtype, p.shape, p.data_ptr(), p.stride(), *[(m.data_ptr(), m.stride()) for m in moments])
        known = self._known.get(p)
        if known is None or known[0] != place:
            known = self._known[p] = place, [as_array(x) for x in (p, *moments)]
        return known[1]

    def forget(self, p: Tensor) -> None:
        """Let go of the memory that p had."""
        self._known.pop(p, None)


def overlaps(x: Tensor) -> bool:
    """Whether several elements of x share one memory location, as an expanded tensor's do."""
    return any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)) and x.numel() > 0
