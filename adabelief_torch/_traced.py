"""The step that `torch.compile` sees."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adabelief_torch._distributed import beside, local
from adabelief_torch._memory import as_reals_tensor
from adabelief_torch._options import read
from adabelief_torch._scalars import tensor_coefficients
from adabelief_torch._tensors import Tensors, update_each


def run_traced(
    group: dict[str, Any],
    params: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_vars: list[Tensor],
    max_exp_avg_vars: list[Tensor],
    kahan_comps: list[Tensor],
    steps: list[Tensor],
) -> None:
    """One group's step, one graph: nothing that changes from step to step is a constant of it."""
    if not params:
        return
    options = read(group)
    torch._foreach_add_(steps, 1)
    grads = [beside(p, g) for p, g in zip(params, grads, strict=True)]
    absent = [None] * len(params)
    rows = zip(params, grads, exp_avgs, exp_avg_vars, max_exp_avg_vars or absent, kahan_comps or absent, strict=True)
    batch = [Tensors(*(x if x is None else _with_axes(as_reals_tensor(local(x))) for x in row)) for row in rows]
    for dtype in (torch.float32, torch.float64):
        alike = [i for i, tensors in enumerate(batch) if tensors.m.dtype is dtype]
        if alike:
            some = [steps[i] for i in alike]
            cs, product = tensor_coefficients(options, some, dtype, params[alike[0]].device, guarded=True)
            update_each([batch[i] for i in alike], cs, options.h.variant, product)


def _with_axes(x: Tensor) -> Tensor:
    """A view without 0-d ones: torch.compile (2.13) loses what it writes into a 0-d float64 tensor on a CPU."""
    return x if x.ndim else x[None]
