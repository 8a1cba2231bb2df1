"""Carry a step out: the core's kernel where NumPy reaches the memory, PyTorch's operations elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from adabelief_core import Coefficients, Job, Variant, coefficients, update_inplace
from adabelief_torch._memory import Arrays, as_array, has_memory
from adabelief_torch._plan import Task, plan
from adabelief_torch._tensors import Tensors, update_each, update_foreach

_REAL_DTYPE = {
    torch.float32: np.float32,
    torch.complex64: np.float32,
    torch.float64: np.float64,
    torch.complex128: np.float64,
}
"""Dtype of the moments to that of the coefficients."""


class Batch(NamedTuple):
    """Parameters with everything in common but their tensors."""

    tensors: list[Tensors]
    c: Coefficients
    variant: Variant
    foreach: bool | None


def run(tasks: list[Task], arrays: Arrays) -> None:
    """Carry the tasks out, eagerly."""
    jobs, written, others = [], [], []
    find = _Coefficients()
    for task in tasks:
        if not task.foreach and has_memory(task.p) and has_memory(task.g):
            jobs.append(_job(task, find, arrays))
            written.append(task.p)
        else:
            others.append(task)
            arrays.forget(task.p)
    batches = _batches(others, find)
    if jobs:
        update_inplace(jobs, threads=torch.get_num_threads())
        # Autograd has not seen NumPy write.
        torch.autograd.graph.increment_version(written)
    for batch in batches:
        update = update_each if batch.foreach is False else update_foreach
        update(batch.tensors, batch.c, batch.variant)
    _count(tasks)


@torch.compiler.disable
def traceable(optimizer: Optimizer) -> list[tuple[list[Tensors], Tensor, Variant]]:
    """What a compiled step works on; the host's part of it, run at every step.

    All numbers are elements of a tensor, so that none of them is a constant whose change compiles anew.
    """
    tasks = plan(optimizer.param_groups, optimizer.state, Arrays())
    batches = _batches(tasks, _Coefficients())
    _count(tasks)
    return [([_with_axes(x) for x in batch.tensors], _packed(batch), batch.variant) for batch in batches]


def run_traced(tensors: list[Tensors], packed: Tensor, variant: Variant) -> None:
    """Carry out one batch of `traceable`; this is what `torch.compile` sees."""
    *numbers, adaptive, negative_zero = packed.unbind()
    # The compiler cannot know that -0.0 changes nothing. A contraction to FMA then rounds the product alone.
    update_each(
        tensors, Coefficients._make([*numbers, adaptive > 0]), variant, product=partial(torch.add, negative_zero)
    )


def _with_axes(tensors: Tensors) -> Tensors:
    """Views without 0-d ones: torch.compile (2.13) loses what it writes into a 0-d float64 tensor on a CPU."""
    if tensors.p.ndim:
        return tensors
    p, g, m, s, v = tensors
    return Tensors(p[None], g[None], m[None], s[None], None if v is None else v[None])


def _packed(batch: Batch) -> Tensor:
    m = batch.tensors[0].m
    return torch.tensor([*map(float, batch.c), -0.0], dtype=m.dtype).to(m.device, non_blocking=True)


class _Coefficients:
    """The coefficients of a step and its variant, computed once for all parameters that share them."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, torch.dtype], tuple[Coefficients, Variant]] = {}

    def __call__(self, task: Task) -> tuple[Coefficients, Variant]:
        dtype = task.state["exp_avg"].dtype
        key = (id(task.h), task.step, dtype)
        if key not in self._known:
            self._known[key] = coefficients(task.h, task.step, _REAL_DTYPE[dtype]), task.h.variant
        return self._known[key]


def _job(task: Task, find: _Coefficients, arrays: Arrays) -> Job:
    c, variant = find(task)
    p, m, s, *v = task.arrays or arrays.make(task.p, task.state)
    return Job(p, as_array(_resolved(task.g)), m, s, v[0] if variant.amsgrad else None, c, variant)


def _batches(tasks: Iterable[Task], find: _Coefficients) -> list[Batch]:
    batches: dict[tuple[object, ...], Batch] = {}
    for task in tasks:
        p, g = task.p, task.g
        if p.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                "AdaBelief does not support CUDA graph capture: the numbers that change from step to step are computed "
                "on the host, and a replay would repeat this step's"
            )
        key = (id(task.h), task.step, p.device, p.dtype, g.dtype, task.foreach, has_memory(p))
        if key not in batches:
            batches[key] = Batch([], *find(task), task.foreach)
        batches[key].tensors.append(_tensors(task))
    return list(batches.values())


def _tensors(task: Task) -> Tensors:
    p, g, m, s = task.p.detach(), _resolved(task.g).detach(), task.state["exp_avg"], task.state["exp_avg_var"]
    v = task.state["max_exp_avg_var"] if task.h.amsgrad else None
    if not p.is_complex():
        return Tensors(p, g, m, s, v)
    p, g, m, s = (torch.view_as_real(x) for x in (p, g, m, s))
    return Tensors(p, g, m, s, None if v is None else torch.view_as_real(v))


def _resolved(g: Tensor) -> Tensor:
    """The gradient as its memory has it: backward of complex operations conjugates lazily."""
    return g.resolve_conj().resolve_neg() if g.is_conj() or g.is_neg() else g


def _count(tasks: list[Task]) -> None:
    if tasks:
        # A tensor, which torch need not make of a number anew for each of them.
        torch._foreach_add_([task.state["step"] for task in tasks], torch.tensor(1.0), alpha=1.0)
