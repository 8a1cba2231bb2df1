"""Take over a saved state: checked and converted before anything changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adabelief_core import Hyperparameters
from adabelief_torch._distributed import described, layout, spread
from adabelief_torch._foreign import Source, source_of
from adabelief_torch._memory import MOMENTS
from adabelief_torch._options import completed, read
from adabelief_torch._plan import COMPUTE_DTYPE, label, step_device

_WANTED = ("step", "exp_avg", "exp_avg_var")


@dataclass(frozen=True)
class _Sealed:
    """A state that `torch.optim.Optimizer.load_state_dict` passes on as it is.

    It casts a tensor of the state to the parameter's dtype, which would round the moments of half-precision parameters.
    """

    state: dict[str, Any]


def sealed(groups: list[dict[str, Any]], state_dict: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict as `load_state_dict` shall take it over: a copy, complete, in the dtypes of the rule.

    Args:
        groups: The optimizer's parameter groups.
        state_dict: This optimizer's, or that of a source in `_foreign`. Options that it lacks keep the optimizer's
            values.

    Raises:
        ValueError, TypeError, RuntimeError: An option is invalid, or a parameter's state lacks a key, has one that
            means nothing here, or has another shape.
    """
    saved = state_dict["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        # load_state_dict has the words for it.
        return dict(state_dict)
    source = source_of(state_dict)
    new_groups = []
    state = dict(state_dict["state"])
    for index, (group, old) in enumerate(zip(groups, saved, strict=True)):
        new = completed(source.group(old), group)
        source.finish_group(new, old, f"param_groups[{index}]")
        h = read(new, host=True).h
        new_groups.append(new)
        for position, (p, key) in enumerate(zip(group["params"], old["params"], strict=True)):
            if state.get(key):
                name = f"{label(group, index, position)}: state[{key!r}]"
                converted = _converted(p, state[key], name, source, h)
                converted["step"] = converted["step"].to(step_device(new, p))
                state[key] = _Sealed(converted)
    return {**state_dict, "state": state, "param_groups": new_groups}


def unseal(state: dict[Any, Any]) -> None:
    """Put what `sealed` hid in its place."""
    for key, value in state.items():
        if isinstance(value, _Sealed):
            state[key] = value.state


def _converted(p: Tensor, saved: Mapping[str, Any], name: str, source: Source, h: Hyperparameters) -> dict[str, Any]:
    for key in map(source.their_key, _WANTED):
        if key not in saved:
            raise ValueError(f"Invalid state_dict: {name} has no {key!r} (its keys: {', '.join(map(repr, saved))})")
    if source.state is not None:
        unknown = [key for key in saved if key not in source.state]
        if unknown:
            raise ValueError(f"Invalid state_dict: {name} has {unknown[0]!r}, which {source.name} has not")
    state = {(source.state or {}).get(key, key): value for key, value in saved.items()}
    state["step"] = _count(state["step"], name)
    for key in MOMENTS:
        if key in state:
            state[key] = _moment(p, state[key], f"{name}[{source.their_key(key)!r}]")
    try:
        source.finish_state(state, h)
    except ValueError as error:
        raise ValueError(f"Invalid state_dict: {name}: {error}") from None
    return state


def _moment(p: Tensor, moment: Any, name: str) -> Tensor:
    """A copy in the dtype of the arithmetic, where the parameter is."""
    if not isinstance(moment, Tensor) or moment.shape != p.shape:
        got = f"shape {list(moment.shape)}" if isinstance(moment, Tensor) else repr(moment)
        raise ValueError(f"Invalid state_dict: {name}: {got} (expected a tensor of shape {list(p.shape)})")
    if moment.is_complex() != p.is_complex() or not (moment.is_complex() or moment.is_floating_point()):
        raise ValueError(f"Invalid state_dict: {name}: {moment.dtype} (expected {COMPUTE_DTYPE[p.dtype]})")
    if layout(moment) not in (None, layout(p)):
        raise ValueError(
            f"Invalid state_dict: {name}: {described(moment)} (expected {described(p)}, as the parameter, or what "
            "torch.distributed.checkpoint makes of it)"
        )
    moment = moment.detach().to(device=p.device, dtype=COMPUTE_DTYPE[p.dtype], copy=True)
    return moment if layout(moment) == layout(p) else spread(moment, p)


def _count(step: Any, name: str) -> Tensor:
    """A step count as this optimizer keeps it; adabelief-pytorch and timm have a Python int."""
    try:
        count = float(step)
    except (RuntimeError, TypeError, ValueError):
        count = math.nan
    if not (math.isfinite(count) and count >= 0 and count.is_integer()):
        raise ValueError(f"Invalid state_dict: {name}['step']: {step!r} (expected an integer >= 0)")
    return torch.tensor(count, dtype=torch.float32, device="cpu")
