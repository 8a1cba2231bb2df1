"""Carry a step out: the core's kernel where NumPy reaches the memory, Triton's or PyTorch's operations elsewhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adabelief_core import Coefficients, Hyperparameters, Job, coefficients, default_kernel, update_inplace
from adabelief_torch._memory import MOMENTS, Table, as_array, as_reals_tensor
from adabelief_torch._options import read
from adabelief_torch._plan import Batch, Task
from adabelief_torch._scalars import tensor_coefficients
from adabelief_torch._tensors import Tensors, update_each, update_foreach

REAL = {
    torch.float32: torch.float32,
    torch.complex64: torch.float32,
    torch.float64: torch.float64,
    torch.complex128: torch.float64,
}
"""Dtype of the moments to the compute dtype."""

_NAMES = {
    torch.float16: "float16",
    torch.bfloat16: "bfloat16",
    torch.float32: "float32",
    torch.complex64: "float32",
    torch.float64: "float64",
    torch.complex128: "float64",
}
"""A dtype's name, or that of the reals of which it is a pair."""


def run(batches: Sequence[Batch], grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
    """Carry a step out, eagerly.

    Args:
        batches: What to do.
        grad_scale: What the gradients are divided by first, a tensor of one element; None: nothing.
        found_inf: Nonzero where a gradient is not finite, a tensor of one element: then nothing is done.
    """
    kernel = [batch for batch in batches if batch.route == "triton"]
    others = [batch for batch in batches if batch.route != "triton"]
    for batch in kernel:
        _run_triton(batch, grad_scale, found_inf)
    if not others or (found_inf is not None and found_inf.item() != 0):
        return
    scale = None if grad_scale is None else grad_scale.item()
    for batch in others:
        if batch.route == "memory":
            _run_memory(batch, scale)
        else:
            _run_tensors(batch, scale)


def _run_memory(batch: Batch, scale: float | None) -> None:
    find = _Coefficients(batch.options.h)
    odd = batch.tasks
    if default_kernel() == "numba":
        tables: defaultdict[tuple[torch.dtype, torch.dtype], list[Task]] = defaultdict(list)
        odd = []
        for task in batch.tasks:
            _, g, _, place = task
            (tables[place.dtype, g.dtype] if place.is_beside(g) else odd).append(task)
        for (dtype, g_dtype), tasks in tables.items():
            key = batch.number, dtype, g_dtype
            places = [task.place for task in tasks]
            table = batch.tables.get(key)
            if table is None or table.places != places:
                table = batch.tables[key] = Table.of(places)
            table.addresses[1] = [task.g.data_ptr() for task in tasks]
            _run_table(table, dtype, g_dtype, find, scale)
    jobs = []
    for task in odd:
        arrays = task.place.arrays()
        c, variant = find(int(task.state["step"]) + 1, arrays["exp_avg"].dtype), batch.options.h.variant
        v = arrays["max_exp_avg_var"] if variant.amsgrad else None
        k = arrays["kahan_comp"] if variant.kahan else None
        g = as_array(_gradient(task, scale))
        jobs.append(Job(arrays["p"], g, arrays["exp_avg"], arrays["exp_avg_var"], v, k, c, variant))
    update_inplace(jobs, threads=torch.get_num_threads())
    _count(odd)
    # Autograd has not seen another write.
    torch.autograd.graph.increment_version([task.place.p for task in batch.tasks])
    _mark_wrappers(batch)


def _run_table(
    table: Table, dtype: torch.dtype, g_dtype: torch.dtype, find: _Coefficients, scale: float | None
) -> None:
    from adabelief_core.memory import Layout, count_steps, update_memory

    compute = "float64" if _NAMES[dtype] == "float64" else "float32"
    layout = Layout(_NAMES[dtype], _NAMES[g_dtype], compute)
    steps = count_steps(table.steps)
    for t in set(steps.tolist()):
        at = steps == t
        update_memory(
            table.addresses[:, at],
            table.sizes[at],
            layout,
            find(int(t), np.dtype(compute)),
            find.h.variant,
            grad_scale=scale,
            threads=torch.get_num_threads(),
        )


def _run_triton(batch: Batch, grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
    from adabelief_torch._triton import update_fused

    h, lr = batch.options.h, batch.options.numbers.lr
    if batch.options.numbers is not h:
        # The kernel takes betas and the decay as the host's numbers, the learning rate as either.
        h = read({**batch.group, "lr": 0.0}, host=True).h
    for tasks in _alike(batch.tasks, lambda task: (task.p.device, task.p.dtype, task.g.dtype)):
        tensors = [_tensors(task, task.g) for task in tasks]
        steps = [task.state["step"] for task in tasks]
        scale, inf = (None if x is None else x.to(tensors[0].p.device) for x in (grad_scale, found_inf))
        update_fused(tensors, steps, h, lr, grad_scale=scale, found_inf=inf)
    _mark_wrappers(batch)


def _run_tensors(batch: Batch, scale: float | None) -> None:
    options = batch.options
    update: Callable[..., None] = update_foreach if batch.route == "foreach" else update_each
    if options.on_tensors:
        _count(batch.tasks)
        for tasks in _alike(batch.tasks, lambda task: (task.p.device, task.p.dtype, task.g.dtype)):
            tensors = [_tensors(task, _gradient(task, scale)) for task in tasks]
            steps = [task.state["step"] for task in tasks]
            cs, _ = tensor_coefficients(options, steps, REAL[tensors[0].m.dtype], tensors[0].p.device)
            update(tensors, cs, options.h.variant)
        _mark_wrappers(batch)
        return
    find = _Coefficients(options.h)

    def kind(task: Task) -> tuple[Any, ...]:
        return int(task.state["step"]) + 1, task.p.device, task.p.dtype, task.g.dtype

    for tasks in _alike(batch.tasks, kind):
        tensors = [_tensors(task, _gradient(task, scale)) for task in tasks]
        c = find(kind(tasks[0])[0], np.dtype(_NAMES[tensors[0].m.dtype]))
        c = Coefficients._make([*map(float, c[:-1]), bool(c.adaptive)])
        update(tensors, [c] * len(tasks), options.h.variant)
    _count(batch.tasks)
    _mark_wrappers(batch)


class _Coefficients:
    """The coefficients of a group's steps, computed once for all parameters that share them."""

    def __init__(self, h: Hyperparameters) -> None:
        self.h = h
        self._known: dict[tuple[int, np.dtype], Coefficients] = {}

    def __call__(self, step: int, dtype: np.dtype) -> Coefficients:
        if (step, dtype) not in self._known:
            self._known[step, dtype] = coefficients(self.h, step, dtype)
        return self._known[step, dtype]


def _alike(tasks: Iterable[Task], kind: Callable[[Task], tuple[object, ...]]) -> Iterable[list[Task]]:
    groups = defaultdict(list)
    for task in tasks:
        groups[kind(task)].append(task)
    return groups.values()


def _tensors(task: Task, g: Tensor) -> Tensors:
    p, *state = task.place.reals()
    if torch.is_grad_enabled():
        # Those that autograd knows.
        p, *state = (x if x is None else as_reals_tensor(x) for x in (task.p, *map(task.state.get, MOMENTS)))
    return Tensors(p, as_reals_tensor(g) if g.is_complex() else g, *state)


def _gradient(task: Task, scale: float | None) -> Tensor:
    """The gradient as its memory has it (backward of complex operations conjugates lazily), unscaled."""
    g = task.g
    if g.is_conj() or g.is_neg():
        g = g.resolve_conj().resolve_neg()
    if scale is None:
        return g
    reals = as_reals_tensor(g.to(task.state["exp_avg"].dtype))
    # A device multiplies by the inverse of a number; by a tensor it divides.
    reals = reals / torch.tensor(scale, dtype=reals.dtype, device=reals.device)
    return torch.view_as_complex(reals) if g.is_complex() else reals


def _mark_wrappers(batch: Batch) -> None:
    """Tell autograd of what was written into a distributed tensor's local part, which has a version of its own."""
    torch.autograd.graph.increment_version([task.p for task in batch.tasks if task.place.p is not task.p])


def _count(tasks: Sequence[Task]) -> None:
    for alike in _alike(tasks, lambda task: (task.state["step"].device,)):
        steps = [task.state["step"] for task in alike]
        if steps[0].is_cpu:
            # A tensor, which torch need not make of a number anew for each of them.
            torch._foreach_add_(steps, torch.tensor(1.0, device="cpu"), alpha=1.0)
        else:
            torch._foreach_add_(steps, 1)
