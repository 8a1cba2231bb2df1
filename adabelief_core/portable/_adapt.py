"""What the verbs of all adapters do alike."""

from __future__ import annotations

from collections.abc import Mapping as MappingABC
from typing import Any

from adabelief_core._hyperparameters import Hyperparameters
from adabelief_core.portable._moves import Mapping, refuse_unmatched
from adabelief_core.portable._snapshot import Entry, Snapshot


def fitted(
    snapshot: Snapshot,
    params: MappingABC[str, tuple[tuple[int, ...], str]],
    mapping: Mapping | None,
    *,
    amsgrad: MappingABC[str, bool] | bool = False,
    kahan_sum: MappingABC[str, bool] | bool = False,
) -> dict[str, Entry]:
    """The entries of a snapshot for these parameters, checked.

    Args:
        snapshot: What to restore.
        params: Name to shape and dtype's name, of the optimizer's parameters.
        mapping: See `Snapshot.moved`; None: names are the same.
        amsgrad: Whether the optimizer needs v, by parameter or for all.
        kahan_sum: Whether it needs k, likewise.

    Raises:
        ValueError: A parameter without a partner, or of another shape or dtype, or a state that is not there.
    """
    entries = (snapshot if mapping is None else snapshot.moved(mapping)).entries
    refuse_unmatched(entries, params, "the snapshot", "the optimizer")
    for name, (shape, dtype) in params.items():
        entry = entries[name]
        p = entry.p
        if p.shape != tuple(shape) or p.dtype.name != dtype:
            raise ValueError(
                f"Invalid snapshot: {name!r} is {p.dtype.name} of shape {list(p.shape)} (expected {dtype} of shape "
                f"{list(shape)}, the optimizer's)"
            )
        for key, option, wanted in (("v", "amsgrad", amsgrad), ("k", "kahan_sum", kahan_sum)):
            needed = wanted if isinstance(wanted, bool) else wanted[name]
            if needed and getattr(entry, key) is None:
                raise ValueError(f"Invalid snapshot: {name!r} has no {key}, which {option}=True needs")
    return {name: entries[name] for name in params}


def refuse_other_hyperparameters(name: str, entry: Entry, ours: Hyperparameters) -> None:
    """Refuse to go on with another rule than the run had so far. The learning rate is free to change.

    Args:
        name: The parameter's.
        entry: Its state; one whose hyperparameters are not known is taken as it is.
        ours: The optimizer's.

    Raises:
        ValueError: They differ; the message names the option and both values.
    """
    if entry.h is None:
        return
    found, expected = _meaning(ours), _meaning(entry.h)
    for key, value in expected.items():
        if found[key] != value:
            raise ValueError(
                f"Invalid {key}: {found[key]!r} (expected {value!r}, with which the snapshot's {name!r} was trained; "
                "check_hyperparameters=False goes on all the same)"
            )


def _meaning(h: Hyperparameters) -> dict[str, Any]:
    """What of hyperparameters a step reads, in one way of saying it."""
    variant = h.variant
    return {
        "betas": h.betas,
        "eps": h.eps,
        "eps_root": h.eps if h.eps_root is None else h.eps_root,
        "weight_decay": h.weight_decay,
        "weight_decouple": variant.decay != "coupled",
        "fixed_decay": variant.decay == "fixed",
        "rectify": h.rectify,
        "degenerated_to_sgd": h.degenerated_to_sgd or not h.rectify,
        "amsgrad": h.amsgrad,
        "nesterov": h.nesterov,
        "maximize": h.maximize,
        "kahan_sum": bool(h.kahan_sum),
        "update_clip": h.update_clip,
    }


def count_of(entries: MappingABC[str, Entry]) -> int:
    """The step that all parameters are at, for optimizers that count once for all.

    Raises:
        ValueError: Two are at different steps.
    """
    found: dict[int, str] = {}
    for name, entry in entries.items():
        found.setdefault(entry.step, name)
    if len(found) > 1:
        first, second = (f"{name!r} is at step {step}" for step, name in list(found.items())[:2])
        raise ValueError(f"Invalid snapshot: {first}, {second} (this optimizer counts once for all)")
    return next(iter(found), 0)
