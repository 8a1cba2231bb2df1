"""The step of `fused=True` on CUDA: two launches for all tensors of a batch, whose numbers the device computes.

`prepare` counts the steps and computes their scalars, `update` carries the rule out. Both find the tensors through a
table on the device, which is written anew only when one of them has moved. Nothing is read back, so a CUDA graph that
captured the step goes on rightly at every replay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from adabelief_core import Hyperparameters
from adabelief_torch._tensors import Tensors
from adabelief_torch._triton_prepare import COLUMNS, ROWS, prepare
from adabelief_torch._triton_table import BLOCK, SHARED, device_table, header
from adabelief_torch._triton_update import update

_TYPES = {
    torch.float16: tl.float16,
    torch.bfloat16: tl.uint16,
    torch.float32: tl.float32,
    torch.float64: tl.float64,
}
_OPTIONS = {"enable_fp_fusion": False}
"""How the kernels are compiled: each operation rounded once, no product contracted with a sum to FMA."""


def update_fused(
    batch: Sequence[Tensors],
    steps: Sequence[Tensor],
    h: Hyperparameters,
    lr: float | Tensor,
    *,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
) -> None:
    """One step of all tensors: the bits of `adabelief_core.update`.

    Args:
        batch: Real tensors of any strides, of one device and one dtype each of p, g and the moments. All but g are
            overwritten; v is there under amsgrad, k under kahan_sum.
        steps: The steps taken so far, a float32 tensor of one element on the same device for each of the batch; counted
            up. They are the state's own: what a CUDA graph reads of the host's memory lives as long as the first.
        h: Hyperparameters; `h.lr` is not read.
        lr: Learning rate: a number, or a tensor of one element. A CUDA graph repeats a number, and a tensor that is not
            on the device.
        grad_scale: What gradients are divided by first, a float32 tensor of one element on the device.
        found_inf: Where it is not 0 nothing changes, a float32 tensor of one element on the device.

    Raises:
        RuntimeError: A CUDA graph is captured before a step was taken outside of one. Nothing has changed.
    """
    if not batch:
        return
    p, m, n = batch[0].p, batch[0].m, len(batch)
    if isinstance(lr, Tensor) and lr.device != p.device:
        lr = lr.item()
    with torch.cuda.device(p.device) if p.is_cuda else contextlib.nullcontext():
        columns, copies = _dense([column for column in zip(*batch, strict=True) if column[0] is not None])
        table, blocks = device_table(
            header(h.betas, h.eps, h.eps_root, h.weight_decay, h.update_clip, m.dtype),
            tuple(map(Tensor.numel, columns[0])),
            tuple(map(Tensor.data_ptr, chain(steps, *columns))),
            steps[0],
        )
        scalars = torch.empty(SHARED.value + COLUMNS * n, dtype=m.dtype, device=p.device)
        prepare[(-(-n // ROWS),)](
            table,
            scalars,
            n,
            lr if isinstance(lr, Tensor) else int(np.float64(lr).view(np.int64)),
            RECTIFY=h.rectify,
            DEGENERATED_TO_SGD=h.degenerated_to_sgd,
            ROWS=ROWS,
            **_OPTIONS,
        )
        update[(blocks,)](
            table,
            scalars,
            n,
            (n - 1).bit_length(),
            grad_scale,
            found_inf,
            P=_TYPES[p.dtype],
            G=_TYPES[batch[0].g.dtype],
            DECAY=h.variant.decay,
            RECTIFY=h.rectify,
            AMSGRAD=h.amsgrad,
            NESTEROV=h.nesterov,
            MAXIMIZE=h.maximize,
            KAHAN=bool(h.kahan_sum),
            CLIP=h.variant.clip,
            BLOCK=BLOCK,
            **_OPTIONS,
        )
        for x, copy in copies:
            x.copy_(copy)
    # Autograd has not seen the kernel write.
    torch.autograd.graph.increment_version([x.p for x in batch])


def _dense(columns: list[tuple[Tensor, ...]]) -> tuple[list[tuple[Tensor, ...]], list[tuple[Tensor, Tensor]]]:
    """The columns p, g, m, … with copies where a row's elements lie in several orders; what to copy back: to, from."""
    copies: list[tuple[Tensor, Tensor]] = []
    if all(map(Tensor.is_contiguous, chain(*columns))):
        return columns, copies
    rows = []
    for row in zip(*columns, strict=True):
        # The strides of a copy of p without gaps: p's own, where it has none.
        strides = torch.empty_like(row[0], device="meta").stride()
        dense = [x if x.stride() == strides else _with_strides(x, strides) for x in row]
        copies += [(x, copy) for i, (x, copy) in enumerate(zip(row, dense, strict=True)) if copy is not x and i != 1]
        rows.append(dense)
    return list(zip(*rows, strict=True)), copies


def _with_strides(x: Tensor, strides: tuple[int, ...]) -> Tensor:
    return torch.empty_strided(x.shape, strides, dtype=x.dtype, device=x.device).copy_(x)
