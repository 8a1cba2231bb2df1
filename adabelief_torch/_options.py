"""The options of a parameter group, in the words of `torch.optim`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adabelief_core import Hyperparameters, Variant

OPTIONS = tuple(field.name for field in fields(Hyperparameters))
"""The keys of a group that hyperparameters stand under."""

PATHS = {"foreach": None, "fused": None, "capturable": False, "differentiable": False}
"""The keys that choose how a step is carried out, and their defaults."""

_DEFAULTS = {**{field.name: field.default for field in fields(Hyperparameters)}, **PATHS}

_SPELLING = {
    "lr": "learning rate",
    "eps": "epsilon value",
    "eps_root": "eps_root value",
    "betas[0]": "beta parameter at index 0",
    "betas[1]": "beta parameter at index 1",
    "weight_decay": "weight_decay value",
}


class Options(NamedTuple):
    """A group's options as they stand now."""

    h: Hyperparameters
    """What the host knows; a valid value stands for a number that it does not."""
    numbers: Any
    """`h`, or `Numbers` where only tensors know one of them."""
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool

    @property
    def paths(self) -> tuple[bool | None, ...]:
        """What decides how a step is carried out."""
        return self.foreach, self.fused, self.capturable, self.differentiable

    @property
    def on_tensors(self) -> bool:
        """Whether the step's numbers are tensors, which the host does not read."""
        return self.capturable or self.differentiable


class Numbers(NamedTuple):
    """Hyperparameters of which some are 0-d tensors."""

    lr: Any
    betas: tuple[Any, Any]
    eps: float
    eps_root: float | None
    weight_decay: Any
    update_clip: float | None
    variant: Variant


def read(group: Mapping[str, Any], *, host: bool = False) -> Options:
    """The group's options, validated; the group's other keys are not read.

    Args:
        group: A parameter group, or defaults.
        host: Read the values of tensors even where the step does not, to validate them.

    Raises:
        ValueError: A value lies outside its range, a tensor has several elements, or two options exclude each other.
        TypeError: A value is of the wrong type.
        RuntimeError: `fused` with `foreach` or `differentiable`, or `foreach` with `differentiable`.
    """
    foreach, fused, capturable, differentiable = (group[key] for key in PATHS)
    for key in ("foreach", "fused"):
        if group[key] is not None and not isinstance(group[key], bool):
            raise TypeError(f"Invalid {key}: {group[key]!r} (expected None or a bool)")
    for key in ("capturable", "differentiable"):
        if not isinstance(group[key], bool):
            raise TypeError(f"Invalid {key}: {group[key]!r} (expected a bool)")
    if fused and differentiable:
        raise RuntimeError("`fused` does not support `differentiable`")
    if fused and foreach:
        raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
    if foreach and differentiable:
        raise RuntimeError("`foreach` does not support `differentiable`: _foreach ops don't support autograd")
    values = [group[option] for option in OPTIONS]
    tensors = _check_tensors(group, bool(foreach and not capturable), host)
    if isinstance(values[1], list):
        values[1] = tuple(values[1])
    if not tensors:
        h = _hyperparameters(values)
        return Options(h, h, foreach, fused, capturable, differentiable)
    keep = (capturable or differentiable) and not host
    lr, betas, weight_decay = group["lr"], values[1], group["weight_decay"]
    values[0] = _value(lr, 0.0, keep)
    values[1] = tuple(_value(beta, 0.5, keep) for beta in betas)
    values[OPTIONS.index("weight_decay")] = _value(weight_decay, 1.0, keep)
    h = _hyperparameters(values)
    if not keep:
        return Options(h, h, foreach, fused, capturable, differentiable)
    lr, weight_decay, betas = _scalar(lr), _scalar(weight_decay), tuple(map(_scalar, betas))
    numbers = Numbers(lr, betas, h.eps, h.eps_root, weight_decay, h.update_clip, h.variant)
    return Options(h, numbers, foreach, fused, capturable, differentiable)


def completed(group: Mapping[str, Any], defaults: Mapping[str, Any] = _DEFAULTS) -> dict[str, Any]:
    """The group with the options that it lacks, as one saved by another version may."""
    return {**{option: defaults[option] for option in _DEFAULTS}, **group}


def check_betas(betas: tuple[Any, Any]) -> None:
    """Refuse a number and a tensor. A scheduler of momentum may leave them so, later."""
    if isinstance(betas[0], Tensor) != isinstance(betas[1], Tensor):
        raise ValueError("betas must be either both floats or both Tensors")


def _check_tensors(group: Mapping[str, Any], refused: bool, host: bool) -> bool:
    """Whether a number is a tensor; one of several elements, or where it is refused, is an error."""
    betas = group["betas"]
    named = {"lr": group["lr"], "weight_decay": group["weight_decay"]}
    if isinstance(betas, tuple | list) and len(betas) == 2:
        named |= {"betas[0]": betas[0], "betas[1]": betas[1]}
    tensors = {key: x for key, x in named.items() if isinstance(x, Tensor)}
    for key, x in tensors.items():
        if refused:
            # AdamW's step raises another error than its constructor.
            error = RuntimeError if key == "lr" and not host else ValueError
            raise error(f"{key} as a Tensor is not supported for capturable=False and foreach=True")
        if x.numel() != 1:
            raise ValueError(f"Tensor {key} must be 1-element")
    return bool(tensors)


def _value(x: Any, stand_in: float, keep: bool) -> Any:
    if not isinstance(x, Tensor):
        return x
    return stand_in if keep else x.item()


def _scalar(x: Any) -> Any:
    return x.reshape(()) if isinstance(x, Tensor) else x


def _hyperparameters(values: list[Any]) -> Hyperparameters:
    if torch.compiler.is_compiling():  # which cannot look into a cache
        return _validated.__wrapped__(*values)
    try:
        return _validated(*values)
    except TypeError:  # also of a value that no cache can look up: the second call names it
        return _validated.__wrapped__(*values)


# `typed` tells True from 1, which are equal, but only one of them is a bool.
@lru_cache(maxsize=256, typed=True)
def _validated(*values: Any) -> Hyperparameters:
    return Hyperparameters(**dict(zip(OPTIONS, values, strict=True)), spelling=_SPELLING)
