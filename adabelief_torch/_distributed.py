"""Distributed tensors (`torch.distributed.tensor.DTensor`): a process works on what lies here, and gathers nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from adabelief_torch._memory import is_plain


def layout(x: Tensor) -> tuple[Any, tuple[Any, ...]] | None:
    """The mesh of processes that a distributed tensor lies on, and its placements; None of any other tensor."""
    return None if is_plain(x) or not hasattr(x, "placements") else (x.device_mesh, tuple(x.placements))


def described(x: Tensor) -> str:
    """How a tensor lies, in words."""
    found = layout(x)
    return "a plain tensor" if found is None else f"a DTensor of placements {found[1]} on {found[0]}"


def local(x: Tensor) -> Tensor:
    """What of a distributed tensor lies here; any other tensor as it is."""
    if is_plain(x) or not hasattr(x, "to_local"):
        return x
    here = x.to_local()
    # What a communication still under way will write has no memory to look at yet.
    return here.wait() if hasattr(here, "wait") else here


def beside(p: Tensor, g: Tensor) -> Tensor:
    """What of a gradient belongs to what lies here of its parameter."""
    if is_plain(p) and is_plain(g):
        return g
    # A partial sum, or a shard of another dimension: each process takes its own part of the parameter's.
    if hasattr(p, "placements") and p.placements != g.placements:
        g = g.redistribute(p.device_mesh, p.placements)
    return local(g)


def spread(x: Tensor, p: Tensor) -> Tensor:
    """What every process has whole, distributed as p: each keeps its own part, and none communicates."""
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x, p.device_mesh, p.placements, src_data_rank=None)


def is_rehearsal(group: Mapping[str, Any]) -> bool:
    """Whether a first step is that by which torch.distributed.checkpoint makes an optimizer begin its state.

    It takes one with gradients and a learning rate of 0, and trusts that the parameters stay.
    """
    grads = (p.grad for p in group["params"] if p.grad is not None)
    return bool(group["lr"] == 0) and not any(bool(local(g).any()) for g in grads)
