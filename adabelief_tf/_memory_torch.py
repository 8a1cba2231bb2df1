"""CPU tensors of Keras variables as memory that the core's kernels work on, found out once and not at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch

from adabelief_core import Job, Variant, default_kernel, update_inplace
from adabelief_tf._tensors import Step


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """The tensor's own memory."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.uint16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


class Place:
    """Where a variable and its state lie.

    Args:
        values: Its tensor, and those of m and s, of v if `has_v`, and of k if there is one more.
        has_v: Whether the state holds the largest s.
    """

    __slots__ = ("_at", "addresses", "arrays", "dtype", "layout", "size", "tensors")

    def __init__(self, values: Sequence[torch.Tensor], has_v: bool) -> None:
        self._at = [x.data_ptr() for x in values]
        # These keep the memory alive, so that no other can come to lie at its address.
        self.tensors = [x.detach() for x in values]
        p, m, s, *rest = map(as_array, self.tensors)
        v = rest.pop(0) if has_v else None
        self.arrays = p, m, s, v, rest[0] if rest else None
        contiguous = all(x.is_contiguous() for x in self.tensors)
        self.addresses = [(m if x is None else x).ctypes.data for x in self.arrays] if contiguous else None
        """Of p, m, s, v and k; m's stands where there is no v or k. None: their elements do not follow one another."""
        self.dtype, self.size, self.layout = self.tensors[0].dtype, p.size, (p.dtype.name, m.dtype.name)

    def holds(self, variables: Sequence[Any]) -> bool:
        """Whether the Keras variables, in the order of `values`, still lie there."""
        return [x._value.data_ptr() for x in variables] == self._at


def update_places(
    places: Sequence[Place], grads: Sequence[torch.Tensor], variants: Sequence[Variant], plan: Mapping[str, Step]
) -> None:
    """One step on each place, with its gradient and its lines of the rule; `plan`: compute dtype to step."""
    tables: dict[Any, list[tuple[int, ...]]] = {}
    jobs = []
    compiled = default_kernel() == "numba"
    for place, g, variant in zip(places, grads, variants, strict=True):
        if compiled and place.addresses is not None and g.dtype is place.dtype and g.is_contiguous():
            first, *others = place.addresses
            tables.setdefault((place.layout, variant), []).append((first, g.data_ptr(), *others, place.size))
        else:
            p, m, s, v, k = place.arrays
            c = plan[place.layout[1]].coefficients
            v, k = v if variant.amsgrad else None, k if variant.kahan else None
            jobs.append(Job(p, as_array(g.detach()), m, s, v, k, c, variant))
    if tables:
        from adabelief_core.memory import Layout, update_memory

        for ((p_dtype, m_dtype), variant), rows in tables.items():
            *addresses, sizes = np.array(rows, np.int64).T
            layout = Layout(p_dtype, p_dtype, m_dtype)
            update_memory(np.array(addresses), sizes, layout, plan[m_dtype].coefficients, variant)
    if jobs:
        update_inplace(jobs)
    # What autograd saved of the old values must not be used any more.
    torch.autograd.graph.increment_version([x for place in places for x in place.tensors])
