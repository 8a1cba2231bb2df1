"""The states of other optimizers in this one's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch

from adabelief_core import Hyperparameters
from adabelief_torch._options import PATHS


def _as_they_are(values: MutableMapping[str, Any], *_: object) -> None:
    """Change nothing: the values mean what they mean here."""


def _belief_group(group: MutableMapping[str, Any], *_: object) -> None:
    # Both compute the largest second moment under rectification and then divide by the last one.
    group["amsgrad"] = group["amsgrad"] and not group["rectify"]
    # Both read it of a decoupled decay alone.
    group["fixed_decay"] = group["fixed_decay"] and group["weight_decouple"]


def _belief_state(state: MutableMapping[str, Any], h: Hyperparameters) -> None:
    if not h.amsgrad:
        state.pop("max_exp_avg_var", None)


def _adam_group(group: MutableMapping[str, Any], old: Mapping[str, Any], name: str) -> None:
    # timm's variants of AdamW have the one and the other.
    if "amsgrad" not in old or "caution" in old:
        raise ValueError(
            f"Invalid state_dict: {name} is not of torch.optim.Adam or AdamW, the only optimizers with an 'exp_avg_sq' "
            "that AdaBelief takes over (start with a new state)"
        )


def _adam_state(state: MutableMapping[str, Any], h: Hyperparameters) -> None:
    """Make the second moment of the surprise of that of the gradient.

    For gradients that are noise about zero E (g-m)² is 2β1²/(1+β1) E g²; about another mean it is less, so that the
    first steps become shorter than AdaBelief's own, not longer. What ε_root would have added by now is added.

    The variance v̂ - m̂² is no estimate: m̂ is a mean over some 1/(1-β1) gradients, and the difference can be zero
    or less.
    """
    beta1, beta2 = h.betas
    if beta1 == 0:
        raise ValueError(
            "Adam's moments with a beta parameter at index 0 of 0 (expected > 0: AdaBelief's g - m is 0 there; start "
            "with a new state)"
        )
    eps_root = h.eps if h.eps_root is None else h.eps_root
    floor = eps_root * (1 - beta2 ** float(state["step"])) / (1 - beta2)
    for key in ("exp_avg_var", "max_exp_avg_var"):
        if key in state:
            s = state[key].mul_(2 * beta1 * beta1 / (1 + beta1))
            (torch.view_as_real(s) if s.is_complex() else s).add_(floor)


@dataclass(frozen=True)
class Source:
    """An optimizer whose state can be taken over."""

    name: str
    marks: frozenset[str]
    """Keys of its groups and states that tell it from those further down the list."""
    options: Mapping[str, str | None] = field(default_factory=dict)
    """Its keys of a group to this optimizer's, where they differ. None: not taken over."""
    state: Mapping[str, str] | None = None
    """Its keys of a parameter's state to this optimizer's, all of them. None: this optimizer's and any others."""
    finish_group: Callable[[MutableMapping[str, Any], Mapping[str, Any], str], None] = _as_they_are
    """Called with a complete group in this optimizer's words, the source's, and how to call that in an error."""
    finish_state: Callable[[MutableMapping[str, Any], Hyperparameters], None] = _as_they_are
    """Called with a parameter's state under this optimizer's keys, moments in the dtype of the arithmetic."""

    def group(self, old: Mapping[str, Any]) -> dict[str, Any]:
        """A saved group under this optimizer's keys."""
        renamed = ((self.options.get(key, key), value) for key, value in old.items())
        return {key: value for key, value in renamed if key is not None}

    def their_key(self, key: str) -> str:
        """What the source calls a key of a parameter's state."""
        return next((theirs for theirs, ours in (self.state or {}).items() if ours == key), key)


_PATHS = dict.fromkeys(PATHS)
"""How a step is carried out is a matter of the machine, not of the run: this optimizer keeps its own."""

_BELIEF = {key: key for key in ("step", "exp_avg", "exp_avg_var", "max_exp_avg_var")}

OWN = Source("adabelief", frozenset({"eps_root"}))
ADAM = Source(
    "torch.optim.Adam or AdamW",
    frozenset({"exp_avg_sq", "decoupled_weight_decay"}),
    # Its ε is that of a denominator of gradients, 1e-8; as ε and ε_root it would drown AdaBelief's.
    {"decoupled_weight_decay": "weight_decouple", "eps": None, **_PATHS},
    {"step": "step", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_var", "max_exp_avg_sq": "max_exp_avg_var"},
    _adam_group,
    _adam_state,
)
TIMM = Source(
    "timm's AdaBelief",
    frozenset({"decoupled_decay"}),
    {"decoupled_decay": "weight_decouple", "buffer": None, **_PATHS},
    _BELIEF,
    _belief_group,
    _belief_state,
)
ADABELIEF_PYTORCH = Source(
    "adabelief-pytorch",
    frozenset({"buffer"}),
    # It reads the last four on the instance alone.
    dict.fromkeys(("buffer", "rectify", "degenerated_to_sgd", "weight_decouple", "fixed_decay")),
    _BELIEF,
    _belief_group,
    _belief_state,
)


def source_of(state_dict: Mapping[str, Any]) -> Source:
    """Whose state it is, by the keys of its groups and of its parameters' states; without a mark, this optimizer's."""
    states = [state for state in state_dict["state"].values() if isinstance(state, Mapping)]
    keys = set().union(*state_dict["param_groups"], *states)
    return next((source for source in (OWN, ADAM, TIMM, ADABELIEF_PYTORCH) if source.marks & keys), OWN)
