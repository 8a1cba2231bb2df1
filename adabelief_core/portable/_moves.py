"""From the names and layouts of one model to those of another."""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as MappingABC
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from adabelief_core.portable._snapshot import ARRAYS, Entry


class Move(NamedTuple):
    """Where a parameter goes: its axes are permuted, and it is reshaped after that.

    The rule works element by element, so that its state moves with a parameter and no bit changes.
    """

    name: str
    axes: tuple[int, ...] | None = None
    """As `numpy.transpose` takes them. None: as they are."""
    shape: tuple[int, ...] | None = None
    """None: the shape that the axes give."""


Mapping: TypeAlias = MappingABC[str, str | Move] | Callable[[str], str | Move]
"""Name to new name or `Move`, for each parameter."""


def moved(entries: MappingABC[str, Entry], mapping: Mapping) -> dict[str, Entry]:
    """See `Snapshot.moved`."""
    if not callable(mapping):
        refuse_unmatched(entries, mapping, "the snapshot", "the mapping")
    out: dict[str, Entry] = {}
    origin: dict[str, str] = {}
    for name, entry in entries.items():
        to = mapping(name) if callable(mapping) else mapping[name]
        move = Move(to) if isinstance(to, str) else to
        if move.name in origin:
            raise ValueError(f"Invalid mapping: {origin[move.name]!r} and {name!r} both become {move.name!r}")
        origin[move.name] = name
        arrays = {key: x for key in ARRAYS if (x := getattr(entry, key)) is not None}
        try:
            laid_out: dict[str, Any] = {key: _laid_out(x, move) for key, x in arrays.items()}
            out[move.name] = replace(entry, **laid_out)
        except ValueError as error:
            raise ValueError(f"Invalid mapping: {name!r} of shape {list(entry.p.shape)} to {move}: {error}") from None
    return out


def refuse_unmatched(ours: MappingABC[str, object], theirs: MappingABC[str, object], here: str, there: str) -> None:
    """Refuse a name that stands on one side alone, and list both sides' such names."""
    left = [name for name in ours if name not in theirs]
    right = [name for name in theirs if name not in ours]
    if left or right:
        raise ValueError(
            f"Parameters without a partner: {_listed(left)} of {here}, {_listed(right)} of {there} (a mapping gives "
            "each the other's name)"
        )


def _laid_out(x: np.ndarray, move: Move) -> np.ndarray:
    if move.axes is not None:
        x = np.transpose(x, move.axes)
    if move.shape is not None:
        x = np.reshape(x, move.shape)
    return x


def _listed(names: list[str]) -> str:
    return ", ".join(map(repr, names)) or "none"
