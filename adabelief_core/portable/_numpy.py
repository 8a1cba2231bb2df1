"""The two verbs for the NumPy optimizer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adabelief_core._optimizer import AdaBelief, ParameterState
from adabelief_core.portable._adapt import fitted, refuse_other_hyperparameters
from adabelief_core.portable._moves import Mapping
from adabelief_core.portable._snapshot import Entry, Snapshot


def snapshot(optimizer: AdaBelief) -> Snapshot:
    """Take a run out of a NumPy optimizer: copies of its parameters and state, and its hyperparameters.

    Args:
        optimizer: The optimizer.
    """
    entries = {}
    for name, entry in optimizer._entries.items():
        state = entry.state
        lr = optimizer.lr if entry.lr is None else entry.lr
        h = replace(entry.h, lr=lr(max(state.step - 1, 0)) if callable(lr) else lr)
        arrays = {key: x.copy() for key in "msvk" if (x := vars(state)[key]) is not None}
        entries[name] = Entry(state.step, entry.param.copy(), **arrays, h=h)
    return Snapshot(entries)


def restore(
    optimizer: AdaBelief, snapshot: Snapshot, mapping: Mapping | None = None, *, check_hyperparameters: bool = True
) -> None:
    """Put a run into a NumPy optimizer, which goes on bit for bit: its parameters change in place.

    Args:
        optimizer: The optimizer. It keeps its own hyperparameters.
        snapshot: What `snapshot` of any adapter took, or `Snapshot.load` read.
        mapping: From the snapshot's names and layouts to the optimizer's; see `Snapshot.moved`. None: they
            are the same.
        check_hyperparameters: Refuse hyperparameters other than the snapshot's, the learning rate apart.

    Raises:
        ValueError: A parameter has no partner, another shape or dtype, or no state that an option needs; or a
            hyperparameter differs. Nothing has changed.
    """
    own = optimizer._entries
    entries = fitted(
        snapshot,
        {name: (entry.param.shape, entry.param.dtype.name) for name, entry in own.items()},
        mapping,
        amsgrad={name: entry.h.amsgrad for name, entry in own.items()},
        kahan_sum={name: bool(entry.h.kahan_sum) for name, entry in own.items()},
    )
    if check_hyperparameters:
        for name, entry in entries.items():
            refuse_other_hyperparameters(name, entry, own[name].h)
    for name, entry in entries.items():
        own[name].param[...] = entry.p
        wanted = {"m": True, "s": True, "v": own[name].h.amsgrad, "k": bool(own[name].h.kahan_sum)}
        arrays = {key: np.array(getattr(entry, key)) for key, needed in wanted.items() if needed}
        own[name].state = ParameterState(entry.step, **arrays)
