"""Take over a saved state: checked and converted before anything changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adabelief_torch._memory import MOMENTS
from adabelief_torch._options import completed, hyperparameters
from adabelief_torch._plan import COMPUTE_DTYPE, label

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
        state_dict: This optimizer's, or that of adabelief-pytorch 0.2.1, whose options stood on the instance: those
            that it lacks keep the optimizer's values.

    Raises:
        ValueError, TypeError: A hyperparameter is invalid, or a parameter's state lacks a key or has another shape.
    """
    saved = state_dict["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in saved]:
        # load_state_dict has the words for it.
        return dict(state_dict)
    new_groups = []
    for group, old in zip(groups, saved, strict=True):
        new_groups.append(completed({key: value for key, value in old.items() if key != "buffer"}, group))
        hyperparameters(new_groups[-1])
    state = dict(state_dict["state"])
    for index, (group, old) in enumerate(zip(groups, saved, strict=True)):
        for position, (p, key) in enumerate(zip(group["params"], old["params"], strict=True)):
            if state.get(key):
                state[key] = _Sealed(_converted(p, state[key], f"{label(group, index, position)}: state[{key!r}]"))
    return {**state_dict, "state": state, "param_groups": new_groups}


def unseal(state: dict[Any, Any]) -> None:
    """Put what `sealed` hid in its place."""
    for key, value in state.items():
        if isinstance(value, _Sealed):
            state[key] = value.state


def _converted(p: Tensor, saved: Mapping[str, Any], name: str) -> dict[str, Any]:
    missing = [key for key in _WANTED if key not in saved]
    if missing:
        raise ValueError(f"Invalid state_dict: {name} has no {missing[0]!r} (its keys: {', '.join(map(repr, saved))})")
    state = dict(saved)
    state["step"] = _count(saved["step"], name)
    for key in MOMENTS:
        if key not in saved:
            continue
        moment = saved[key]
        if not isinstance(moment, Tensor) or moment.shape != p.shape:
            got = f"shape {list(moment.shape)}" if isinstance(moment, Tensor) else repr(moment)
            raise ValueError(f"Invalid state_dict: {name}[{key!r}]: {got} (expected a tensor of shape {list(p.shape)})")
        if moment.is_complex() != p.is_complex() or not (moment.is_complex() or moment.is_floating_point()):
            raise ValueError(f"Invalid state_dict: {name}[{key!r}]: {moment.dtype} (expected {COMPUTE_DTYPE[p.dtype]})")
        state[key] = moment.detach().to(device=p.device, dtype=COMPUTE_DTYPE[p.dtype], copy=True)
    return state


def _count(step: Any, name: str) -> Tensor:
    """A step count as this optimizer keeps it; adabelief-pytorch has a Python int."""
    try:
        count = float(step)
    except (RuntimeError, TypeError, ValueError):
        count = math.nan
    if not (math.isfinite(count) and count >= 0 and count.is_integer()):
        raise ValueError(f"Invalid state_dict: {name}['step']: {step!r} (expected an integer >= 0)")
    return torch.tensor(count, dtype=torch.float32)
