"""What one step will do, found out before it changes anything."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from adabelief_core import Hyperparameters
from adabelief_torch._memory import MOMENTS, Arrays, overlaps
from adabelief_torch._options import hyperparameters

COMPUTE_DTYPE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.complex64,
    torch.complex128: torch.complex128,
}
"""Parameter's dtype to that of its moments."""


class Task(NamedTuple):
    """One parameter's part of the step."""

    p: Tensor
    g: Tensor
    state: MutableMapping[str, Tensor]
    step: int
    """The number of this step, from 1."""
    h: Hyperparameters
    foreach: bool | None
    arrays: list[np.ndarray] | None
    """Arrays of p and its moments, where they are known."""


def plan(groups: list[dict[str, Any]], state: Mapping[Tensor, Any], arrays: Arrays) -> list[Task]:
    """The tasks of a step: every parameter with a gradient. State begins at zero.

    Args:
        groups: Parameter groups.
        state: The optimizer's.
        arrays: Those made before: a parameter whose memory and moments are where they were has been checked.

    Raises:
        RuntimeError: A gradient is sparse.
        ValueError, TypeError: A hyperparameter, gradient, parameter or state that the rule cannot take.
            No state has begun, nothing has changed.
    """
    found = []
    for index, group in enumerate(groups):
        h = hyperparameters(group)
        for position, p in enumerate(group["params"]):
            g = p.grad
            if g is None:
                continue
            # Not state[p]: the lookup alone would begin an entry.
            known = state.get(p)
            ready = arrays.known(p, known) if known else None
            try:
                if ready is None:
                    _check_param(p)
                    _check_moments(p, known)
                _check_grad(p, g)
            except (RuntimeError, TypeError, ValueError) as error:
                raise type(error)(f"{label(group, index, position)}: {error}") from None
            found.append((p, g, known, h, group["foreach"], ready))
    return [_task(state, *task) for task in found]


def check_group(group: Mapping[str, Any], index: int) -> None:
    """Refuse a new group with an invalid hyperparameter, or a parameter that no step could change in place.

    A parameter without requires_grad may be of any kind.
    """
    hyperparameters(group)
    for position, p in enumerate(group["params"]):
        if p.requires_grad:
            try:
                _check_param(p)
            except (TypeError, ValueError) as error:
                raise type(error)(f"{label(group, index, position)}: {error}") from None


def _check_param(p: Tensor) -> None:
    if p.dtype not in COMPUTE_DTYPE:
        names = ", ".join(str(dtype).removeprefix("torch.") for dtype in COMPUTE_DTYPE)
        raise TypeError(f"AdaBelief does not support parameters of dtype {p.dtype} (expected one of {names})")
    if p.layout is not torch.strided:
        raise ValueError(f"AdaBelief does not support parameters of layout {p.layout} (expected torch.strided)")
    if not p.is_contiguous() and overlaps(p):
        raise ValueError(
            "AdaBelief does not support parameters whose elements share memory, as those of expand do (shape "
            f"{list(p.shape)}, strides {list(p.stride())})"
        )
    if p.is_conj() or p.is_neg():
        raise ValueError("AdaBelief does not support parameters that are lazily conjugated or negated views")


def label(group: Mapping[str, Any], index: int, position: int) -> str:
    """How to find a parameter, in words."""
    name = f" ({group['param_names'][position]!r})" if "param_names" in group else ""
    return f"param_groups[{index}]['params'][{position}]{name}"


def zeros(p: Tensor) -> Tensor:
    """A moment of p, at its start."""
    return torch.zeros_like(p, dtype=COMPUTE_DTYPE[p.dtype], memory_format=torch.preserve_format, requires_grad=False)


def _check_grad(p: Tensor, g: Tensor) -> None:
    if g.layout is not torch.strided:
        raise RuntimeError("AdaBelief does not support sparse gradients, please consider SparseAdam instead")
    if g.shape != p.shape:
        raise ValueError(f"Invalid grad: shape {list(g.shape)} (expected {list(p.shape)}, the parameter's)")
    # A half-precision parameter may gather its gradient in float32 (`grad_dtype`).
    if g.dtype is not p.dtype and g.dtype is not COMPUTE_DTYPE[p.dtype]:
        raise ValueError(f"Invalid grad: dtype {g.dtype} (expected {p.dtype}, the parameter's)")


def _check_moments(p: Tensor, state: Mapping[str, Tensor] | None) -> None:
    dtype = COMPUTE_DTYPE[p.dtype]
    for key in MOMENTS:
        if not state or (key not in state and key == "max_exp_avg_var"):
            continue
        moment = state[key]
        if moment.shape != p.shape:
            raise ValueError(
                f"Invalid state {key!r}: shape {list(moment.shape)} (expected {list(p.shape)}, the parameter's)"
            )
        if moment.dtype is not dtype or moment.device != p.device:
            raise ValueError(
                f"Invalid state {key!r}: {moment.dtype} on {moment.device} (expected {dtype} on {p.device}: has the "
                "parameter changed? load_state_dict converts the state to it)"
            )


def _task(
    state: Any,
    p: Tensor,
    g: Tensor,
    known: Any,
    h: Hyperparameters,
    foreach: bool | None,
    arrays: list[np.ndarray] | None,
) -> Task:
    if not known:
        known = state[p]
        # On the host, as torch.optim has it: reading it must not wait for a device.
        known["step"] = torch.zeros((), dtype=torch.float32)
        known["exp_avg"], known["exp_avg_var"] = zeros(p), zeros(p)
    # Also where a group turns amsgrad on later: the largest second moment seen since then.
    if h.amsgrad and "max_exp_avg_var" not in known:
        known["max_exp_avg_var"], arrays = zeros(p), None
    return Task(p, g, known, int(known["step"]) + 1, h, foreach, arrays)
