"""The one place that names, defaults and validates AdaBelief's hyperparameters."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import Any, Literal, NamedTuple

Decay = Literal["none", "coupled", "decoupled", "fixed"]

_BOOLS = {"bool": "a bool", "bool | None": "None or a bool"}
"""Annotation of a switch to how errors describe it."""


class Variant(NamedTuple):
    """Which lines of the rule run: everything about it that no step changes."""

    decay: Decay = "none"
    rectify: bool = False
    amsgrad: bool = False
    nesterov: bool = False
    maximize: bool = False
    kahan: bool = False
    clip: bool = False


@dataclass(frozen=True)
class Hyperparameters:
    """AdaBelief's hyperparameters, validated once for every framework.

    Args:
        lr: Learning rate, a finite number >= 0.
        betas: Decay rates (β1, β2) of the two moments, each in [0, 1).
        eps: Added to the denominator, a finite number >= 0.
        eps_root: Added to the second moment at every step, where it accumulates; a finite
            number >= 0. None: the value of `eps`.
        weight_decay: Decay rate λ, a finite number >= 0.
        weight_decouple: True: decay the parameters (AdamW). False: add λp to the gradient (L2).
        fixed_decay: True: decoupled decay by λ in place of lr·λ. Needs `weight_decouple`.
        rectify: Variance rectification of RAdam.
        degenerated_to_sgd: What rectification does in its first steps, while the variance is
            unknown. True: momentum SGD. False: no update. Read under `rectify` alone.
        amsgrad: Divide by the largest second moment seen so far.
        nesterov: Nesterov momentum, as Optax has it.
        maximize: Ascend in place of descending.
        kahan_sum: True: compensated sum of the parameters, which keeps what rounding them drops (pure
            bfloat16 training). None: off.
        update_clip: Bound of each element of u in line 7 of the rule, a finite number > 0: no step is longer than
            lr·k·update_clip, and k falls to 1. Where gradients are constant, or clipped by element, or β1 is 0,
            g - m goes to 0, and without a bound the step grows and grows. None: no bound.
        spelling: How the caller spells a field where it differs (`{"lr": "learning_rate"}`), so
            that errors speak the caller's language. Not stored.

    Raises:
        ValueError: A value lies outside its range, or two options exclude each other. The message
            names the argument and the value.
        TypeError: A value is of the wrong type, or a name is unknown.

    Example:
        >>> from adabelief_core import Hyperparameters
        >>> Hyperparameters(betas=(0.9, 1.0))
        Traceback (most recent call last):
        ...
        ValueError: Invalid betas[1]: 1.0 (expected a number in [0, 1))

    References:
        Zhuang et al., AdaBelief Optimizer, NeurIPS 2020, https://arxiv.org/abs/2010.07468
        (Algorithm 2).
    """

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-16
    eps_root: float | None = None
    weight_decay: float = 0.0
    weight_decouple: bool = True
    fixed_decay: bool = False
    rectify: bool = False
    degenerated_to_sgd: bool = True
    amsgrad: bool = False
    nesterov: bool = False
    maximize: bool = False
    kahan_sum: bool | None = None
    update_clip: float | None = None
    spelling: InitVar[Mapping[str, str] | None] = None

    def __post_init__(self, spelling: Mapping[str, str] | None) -> None:
        names = spelling or {}

        def name(field: str) -> str:
            return names.get(field, field)

        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ValueError(f"Invalid {name('betas')}: {self.betas!r} (expected a pair of numbers)")
        object.__setattr__(self, "betas", tuple(self.betas))
        for field in ("lr", "eps", "eps_root", "weight_decay"):
            value = getattr(self, field)
            if field == "eps_root" and value is None:
                continue
            if not 0 <= number(value, name(field)) < math.inf:
                raise ValueError(f"Invalid {name(field)}: {value} (expected a finite number >= 0)")
        if self.update_clip is not None and not 0 < number(self.update_clip, name("update_clip")) < math.inf:
            raise ValueError(
                f"Invalid {name('update_clip')}: {self.update_clip} (expected None or a finite number > 0)"
            )
        for index, beta in enumerate(self.betas):
            label = name(f"betas[{index}]")
            if not 0 <= number(beta, label) < 1:
                raise ValueError(f"Invalid {label}: {beta} (expected a number in [0, 1))")
        for field, kind in self.__annotations__.items():
            value = getattr(self, field)
            if kind in _BOOLS and not isinstance(value, bool) and not (value is None and kind == "bool | None"):
                raise TypeError(f"Invalid {name(field)}: {value!r} (expected {_BOOLS[kind]})")
        if self.fixed_decay and not self.weight_decouple:
            raise ValueError(
                f"Invalid {name('fixed_decay')}: True (a fixed decay is a decoupled one, but "
                f"{name('weight_decouple')} is False)"
            )

    @property
    def variant(self) -> Variant:
        """The lines of the rule that these hyperparameters switch on."""
        decay: Decay = "none"
        if self.weight_decay != 0:
            decoupled: Decay = "fixed" if self.fixed_decay else "decoupled"
            decay = decoupled if self.weight_decouple else "coupled"
        kahan, clip = bool(self.kahan_sum), self.update_clip is not None
        return Variant(decay, self.rectify, self.amsgrad, self.nesterov, self.maximize, kahan, clip)


def spelt(options: Mapping[str, Any], spelling: Mapping[str, str]) -> dict[str, Any]:
    """Fields of `Hyperparameters` as the arguments of an adapter.

    Args:
        options: Field to value.
        spelling: As that of `Hyperparameters`; a pair whose members have names of their own is taken apart.

    Example:
        >>> from adabelief_core import spelt
        >>> spelling = {"lr": "rate", "betas[0]": "b1", "betas[1]": "b2"}
        >>> spelt({"lr": 0.1, "betas": (0.9, 0.99), "rectify": True}, spelling)
        {'rate': 0.1, 'b1': 0.9, 'b2': 0.99, 'rectify': True}
    """
    named: dict[str, Any] = {}
    for field, value in options.items():
        if f"{field}[0]" in spelling:
            named |= {spelling[f"{field}[{index}]"]: member for index, member in enumerate(value)}
        else:
            named[spelling.get(field, field)] = value
    return named


def number(value: object, name: str) -> float:
    """`value` if it is a real number and no bool; otherwise a TypeError that names it."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Invalid {name}: {value!r} (expected a number)")
    return float(value)
