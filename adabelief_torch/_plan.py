"""What one step will do, found out before it changes anything."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from adabelief_core import default_kernel
from adabelief_torch._distributed import beside, described, is_rehearsal, layout, local
from adabelief_torch._memory import MOMENTS, Place, Places, Table, has_memory, is_plain, overlaps
from adabelief_torch._options import Options, read

COMPUTE_DTYPE = {
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
    torch.float32: torch.float32,
    torch.float64: torch.float64,
    torch.complex64: torch.complex64,
    torch.complex128: torch.complex128,
}
"""Parameter's dtype to that of its moments."""

Route = Literal["memory", "triton", "foreach", "each"]
"""The core's kernel on the tensor's memory, Triton's kernel, or PyTorch's operations."""


class Task(NamedTuple):
    """One parameter's part of the step."""

    p: Tensor
    g: Tensor
    """What of the gradient lies here."""
    state: MutableMapping[str, Tensor]
    place: Place


class Batch(NamedTuple):
    """Parameters of one group that take one route."""

    group: Mapping[str, Any]
    options: Options
    route: Route
    tasks: list[Task]
    number: int
    """The group's."""
    tables: MutableMapping[tuple[int, torch.dtype, torch.dtype], Table]
    """Those of the steps before."""


def plan(groups: list[dict[str, Any]], state: Mapping[Tensor, Any], places: Places) -> list[Batch]:
    """What a step works on: every parameter with a gradient. State begins at zero.

    Args:
        groups: Parameter groups.
        state: The optimizer's.
        places: Those found before: a parameter whose memory and state are where they were has been checked.

    Raises:
        RuntimeError: A gradient is sparse, or an option asks for what the parameter's device cannot do.
        ValueError, TypeError: A hyperparameter, gradient, parameter or state that the rule cannot take.
            No state has begun, nothing has changed.
    """
    batches: dict[tuple[int, Route], Batch] = {}
    found = []
    for index, given in enumerate(groups):
        rehearsal = given["fixed_decay"] and not state and is_rehearsal(given)
        group = {**given, "weight_decay": 0.0} if rehearsal else given
        options = read(group)
        paths = options.paths
        wanted = {key for key, flag in zip(MOMENTS[2:], (options.h.amsgrad, options.h.kahan_sum), strict=True) if flag}
        for position, p in enumerate(group["params"]):
            g = p.grad
            if g is None:
                continue
            # Not state[p]: the lookup alone would begin an entry.
            known = state.get(p)
            place = places.get(id(p))
            # What autograd records is looked at anew: a step count may have come to require a gradient.
            if place is not None and not (known and place.holds(p, known) and not options.differentiable):
                place = None
            if place is not None and known and place.paths == paths and place.takes(g) and wanted <= known.keys():
                key = index, place.route
                if key not in batches:
                    batches[key] = _batch(group, options, place.route, index, places)
                batches[key].tasks.append(Task(p, g, known, place))
                continue
            try:
                if place is None:
                    _check_param(p)
                    _check_state(p, known, options)
                _check_grad(p, g)
                route = _route(p, options)
            except (RuntimeError, TypeError, ValueError) as error:
                raise type(error)(f"{label(group, index, position)}: {error}") from None
            key = index, route
            if key not in batches:
                batches[key] = _batch(group, options, route, index, places)
            found.append((batches[key], p, g))
    for batch, p, g in found:
        batch.tasks.append(_task(state, places, batch.options, batch.route, p, g))
    return list(batches.values())


def _batch(group: Mapping[str, Any], options: Options, route: Route, index: int, places: Places) -> Batch:
    if route == "memory" and options.numbers is not options.h:
        # The host carries this step out: it needs the numbers, and waits for no device.
        options = read(group, host=True)
    return Batch(group, options, route, [], index, places.tables)


def check_group(group: Mapping[str, Any], index: int) -> None:
    """Refuse a new group with an invalid option, or a parameter that no step could change in place.

    A parameter without requires_grad may be of any kind.
    """
    options = read(group, host=True)
    for position, p in enumerate(group["params"]):
        if p.requires_grad:
            try:
                _check_param(p)
                _route(p, options)
            except (RuntimeError, TypeError, ValueError) as error:
                raise type(error)(f"{label(group, index, position)}: {error}") from None


def step_device(group: Mapping[str, Any], p: Tensor) -> torch.device:
    """Where a parameter's step count stands: beside it where the step must not wait for the host, else on the CPU."""
    options = read(group)
    return p.device if options.capturable or _route(p, options) == "triton" else torch.device("cpu")


def _route(p: Tensor, options: Options) -> Route:
    here = local(p)
    if options.differentiable:
        if layout(p):
            raise RuntimeError(f"`differentiable=True` does not support {described(p)}")
        return "each"
    if options.fused:
        if has_memory(here):
            if default_kernel() != "numba":
                raise RuntimeError("`fused=True` on a CPU needs numba: pip install 'adabelief[fast]'")
            return "memory"
        if here.is_cuda and is_plain(here) and _has_triton():
            return "triton"
        raise RuntimeError(
            "`fused=True` requires all the params to be floating point Tensors of supported devices: ['cpu', 'cuda'] "
            f"but {p.dtype} and {p.device.type}"
        )
    if options.foreach:
        return "foreach"
    if has_memory(here):
        return "memory"
    if options.foreach is None and options.fused is None and is_plain(here):
        return "triton" if here.is_cuda and _has_triton() else "foreach"
    return "each"


@lru_cache(maxsize=1)
def _has_triton() -> bool:
    return find_spec("triton") is not None


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
    if layout(p) and any(placement.is_partial() for placement in p.placements):
        raise ValueError(f"AdaBelief does not support parameters that are partial sums: {described(p)}")


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
    ours, theirs = layout(p), layout(g)
    if (ours and ours[0]) != (theirs and theirs[0]):
        raise ValueError(f"Invalid grad: {described(g)} (expected {described(p)}, as the parameter)")
    # A half-precision parameter may gather its gradient in float32 (`grad_dtype`).
    if g.dtype is not p.dtype and g.dtype is not COMPUTE_DTYPE[p.dtype]:
        raise ValueError(f"Invalid grad: dtype {g.dtype} (expected {p.dtype}, the parameter's)")


def _check_state(p: Tensor, state: Mapping[str, Tensor] | None, options: Options) -> None:
    if not state:
        return
    dtype = COMPUTE_DTYPE[p.dtype]
    for key in ("step", *MOMENTS[:2]):
        if key not in state:
            raise ValueError(f"Invalid state: it has no {key!r} (its keys: {', '.join(map(repr, state))})")
    for key in filter(state.__contains__, MOMENTS):
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
        if layout(moment) != layout(p):
            raise ValueError(f"Invalid state {key!r}: {described(moment)} (expected {described(p)}, as the parameter)")
    step = state["step"]
    if not isinstance(step, Tensor) or step.numel() != 1:
        raise ValueError(f"Invalid state 'step': {step!r} (expected a tensor of one element)")
    if options.differentiable and step.requires_grad:
        raise RuntimeError("`requires_grad` is not supported for `step` in differentiable mode")


def _task(state: Any, places: Places, options: Options, route: Route, p: Tensor, g: Tensor) -> Task:
    known = state[p]
    # What begins in inference mode could not be written outside of it.
    with torch.inference_mode(False):
        if not known:
            known["step"] = torch.zeros((), dtype=torch.float32, device="cpu")
            known["exp_avg"], known["exp_avg_var"] = zeros(p), zeros(p)
        # Also where a group turns one of these on later: from then on.
        for wanted, key in ((options.h.amsgrad, "max_exp_avg_var"), (options.h.kahan_sum, "kahan_comp")):
            if wanted and key not in known:
                known[key] = zeros(p)
    device = p.device if options.capturable or route == "triton" else torch.device("cpu")
    step = known["step"]
    if step.device != device or step.dtype is not torch.float32:
        known["step"] = step.to(device, torch.float32)
    if is_plain(p) and (p.is_cpu or p.is_cuda):
        place = places[id(p)] = Place(p, known, route, options.paths)
    else:
        # What is held elsewhere has no address to be known again by.
        place = Place(local(p), {key: local(x) for key, x in known.items()}, route, options.paths)
    return Task(p, beside(p, g), known, place)
