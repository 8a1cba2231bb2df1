"""CPU tensors as memory that the core's kernels work on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from adabelief_core import as_reals

MOMENTS = ("exp_avg", "exp_avg_var", "max_exp_avg_var", "kahan_comp")
"""The keys of a parameter's state that tensors of its shape stand under."""

_PLAIN = (Tensor, torch.nn.Parameter)


def is_plain(x: Tensor) -> bool:
    """Whether x is no subclass, which may hold its elements anywhere (DTensor, FakeTensor, …)."""
    return type(x) in _PLAIN


def has_memory(x: Tensor) -> bool:
    """Whether the elements of a strided tensor lie in this process's memory, where NumPy can work on them."""
    return x.is_cpu and is_plain(x)


def as_array(x: Tensor) -> np.ndarray:
    """An array that shares the memory of x. A complex number is a pair of reals on a new last axis."""
    array = to_numpy(x)
    return as_reals(array) if x.dtype.is_complex else array


def to_numpy(x: Tensor) -> np.ndarray:
    """An array that shares the memory of x."""
    x = x.detach()
    if x.dtype is torch.bfloat16:
        return x.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return x.numpy()


def as_reals_tensor(x: Tensor) -> Tensor:
    """A view of x in which a complex number is a pair of reals; x if it is real."""
    return torch.view_as_real(x) if x.is_complex() else x


def overlaps(x: Tensor) -> bool:
    """Whether several elements of x share one memory location, as an expanded tensor's do."""
    return any(stride == 0 and size > 1 for stride, size in zip(x.stride(), x.shape, strict=True)) and x.numel() > 0


def is_dense(x: Tensor) -> bool:
    """Whether the elements of x fill one stretch of memory, in whatever order."""
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True


class Place:
    """Where a parameter and its state lie, and how they take a step: found out once, until one of them moves.

    Args:
        p: The parameter, or what of it lies here.
        state: Its step and moments, likewise.
        route: How it takes a step.
        paths: The group's options that decided it.
    """

    __slots__ = (
        "_arrays",
        "_at",
        "_contiguous",
        "_held",
        "_ids",
        "_on_cpu",
        "_pointers",
        "_reals",
        "_strides",
        "_values",
        "addresses",
        "dtype",
        "p",
        "paths",
        "route",
        "size",
        "state",
    )

    def __init__(self, p: Tensor, state: Mapping[str, Tensor], route: Any, paths: tuple[object, ...]) -> None:
        self.p, self.state, self.route, self.paths = p, state, route, paths
        self.dtype, self.size = p.dtype, p.numel()
        self._on_cpu, self._contiguous = p.is_cpu, p.is_contiguous()
        tensors = [p, state["step"], *(state[key] for key in MOMENTS if key in state)]
        self._values = list(state.values())  # and with them, what their ids stand for
        self._ids = [*map(id, self._values)]
        self._pointers = [x.data_ptr for x in tensors]
        self._at = [x.data_ptr() for x in tensors] if all(map(is_plain, tensors)) else []
        m = state["exp_avg"]
        columns = [p, *(state.get(key, m) for key in MOMENTS), state["step"]]
        self.addresses = [x.data_ptr() for x in columns] if self._at else []
        """Of p, m, s, v, k and the step; m's stands where there is no v or k. Empty: they are held elsewhere."""
        # Tensors of its own keep the memory alive, so that no other can come to lie at its address.
        self._held = [x.detach() for x in tensors]
        alike = all(x.stride() == p.stride() for x in tensors[2:]) and is_dense(p)
        self._strides = p.stride() if alike else None
        self._arrays: dict[str, np.ndarray] | None = None
        self._reals: tuple[Tensor | None, ...] | None = None

    def holds(self, p: Tensor, state: Mapping[str, Tensor]) -> bool:
        """Whether all of it still lies as it did."""
        return (
            p.dtype is self.dtype
            and p.numel() == self.size
            and p.is_contiguous() is self._contiguous
            and [*map(id, state.values())] == self._ids
            and [pointer() for pointer in self._pointers] == self._at
        )

    def takes(self, g: Tensor) -> bool:
        """Whether a gradient is of the usual kind: strided, beside the parameter, of its dtype and size."""
        return (
            g.dtype is self.dtype
            and type(g) is Tensor
            and g.layout is torch.strided
            and g.is_cpu is self._on_cpu  # which CUDA device, p.grad has been asked when it was set
            and g.numel() == self.size
        )

    def is_beside(self, g: Tensor) -> bool:
        """Whether a gradient's elements, and the state's, follow one another in memory as the parameter's do."""
        if self._strides is None or (self.dtype.is_complex and (g.is_conj() or g.is_neg())):
            return False
        return g.is_contiguous() if self._contiguous else g.stride() == self._strides

    def reals(self) -> tuple[Tensor | None, ...]:
        """Of p, m, s, v and k, complex ones as pairs of reals; None where there is no v or k."""
        if self._reals is None:
            found = dict(zip(("p", "step", *(key for key in MOMENTS if key in self.state)), self._held, strict=True))
            self._reals = tuple(x if x is None else as_reals_tensor(x) for x in map(found.get, ("p", *MOMENTS)))
        return self._reals

    def arrays(self) -> dict[str, np.ndarray]:
        """NumPy's, under "p" and the moments' keys. Making them costs more than a small tensor's step."""
        if self._arrays is None:
            moments = {key: as_array(self.state[key]) for key in MOMENTS if key in self.state}
            self._arrays = {"p": as_array(self._held[0]), **moments}
        return self._arrays


class Table(NamedTuple):
    """Places that one call of the kernel works on, while they are the same."""

    places: list[Place]
    addresses: np.ndarray
    """Of p, g, m, s, v and k, int64, shape (6, n); those of g are each step's own."""
    steps: np.ndarray
    """Of the step counts, int64, shape (n,)."""
    sizes: np.ndarray
    """Real numbers of each, int64, shape (n,)."""

    @classmethod
    def of(cls, places: list[Place]) -> Table:
        p, *others, step = np.array([place.addresses for place in places], np.int64).T
        sizes = [place.size * (2 if place.dtype.is_complex else 1) for place in places]
        return cls(places, np.stack([p, p, *others]), np.ascontiguousarray(step), np.array(sizes, np.int64))


class Places(dict[int, Place]):
    """An optimizer's, by the parameters' ids: a tensor's hash costs more, and a place keeps its parameter alive.

    `tables` are those of a group, by its index, and of dtypes of parameter and gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self.tables: dict[tuple[int, torch.dtype, torch.dtype], Table] = {}
