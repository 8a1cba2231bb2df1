"""The hyperparameters of a parameter group, in the words of `torch.optim`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

from torch import Tensor

from adabelief_core import Hyperparameters

OPTIONS = tuple(field.name for field in fields(Hyperparameters))
"""The keys of a group that hyperparameters stand under."""

_DEFAULTS = {**{field.name: field.default for field in fields(Hyperparameters)}, "foreach": None}

_SPELLING = {
    "lr": "learning rate",
    "eps": "epsilon value",
    "eps_root": "eps_root value",
    "betas[0]": "beta parameter at index 0",
    "betas[1]": "beta parameter at index 1",
    "weight_decay": "weight_decay value",
}


def hyperparameters(group: Mapping[str, Any]) -> Hyperparameters:
    """The group's hyperparameters as they stand now, validated; the group's other keys are not read.

    Raises:
        ValueError: A value lies outside its range, or the learning rate is a tensor of several elements.
        TypeError: A value is of the wrong type.
    """
    values = [group[option] for option in OPTIONS]
    if isinstance(values[0], Tensor):
        if values[0].numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        values[0] = values[0].item()
    if isinstance(values[1], list):
        values[1] = tuple(values[1])
    foreach = group["foreach"]
    if foreach is not None and not isinstance(foreach, bool):
        raise TypeError(f"Invalid foreach: {foreach!r} (expected None or a bool)")
    try:
        return _validated(*values)
    except TypeError:  # also of a value that no cache can look up: the second call names it
        return _validated.__wrapped__(*values)


def completed(group: Mapping[str, Any], defaults: Mapping[str, Any] = _DEFAULTS) -> dict[str, Any]:
    """The group with the options that it lacks, as one saved by another version may."""
    return {**{option: defaults[option] for option in _DEFAULTS}, **group}


# `typed` tells True from 1, which are equal, but only one of them is a bool.
@lru_cache(maxsize=256, typed=True)
def _validated(*values: Any) -> Hyperparameters:
    return Hyperparameters(**dict(zip(OPTIONS, values, strict=True)), spelling=_SPELLING)
