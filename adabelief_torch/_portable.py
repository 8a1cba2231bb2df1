"""A run out of PyTorch, and into it: the two verbs of `adabelief_core.portable`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor

from adabelief_core import Hyperparameters
from adabelief_core.portable import Entry, Snapshot, fitted, refuse_other_hyperparameters
from adabelief_core.portable import Mapping as Moves
from adabelief_core.portable._progress import watched
from adabelief_torch._distributed import layout, spread
from adabelief_torch._memory import MOMENTS, to_numpy
from adabelief_torch._optimizer import AdaBelief
from adabelief_torch._options import read
from adabelief_torch._plan import label, zeros

_KEYS = dict(zip("msvk", MOMENTS, strict=True))


def snapshot(optimizer: AdaBelief, named_parameters: Iterable[tuple[str, Tensor]]) -> Snapshot:
    """Take a run out of an optimizer: copies of its parameters and state as NumPy arrays, and its hyperparameters.

    A distributed parameter (`DTensor`) and its state are gathered, one tensor at a time: all processes must call, and
    each of them gets the whole run in its host's memory.

    Args:
        optimizer: The optimizer. A parameter that has taken no step yet is at step 0.
        named_parameters: `model.named_parameters()`, which names all of the optimizer's parameters.

    Raises:
        ValueError: A parameter of the optimizer has no name, or two.

    Examples:
        >>> from adabelief_torch import AdaBelief, restore, snapshot
        >>> model, other = torch.nn.Linear(2, 1), torch.nn.Linear(2, 1)
        >>> optimizer = AdaBelief(model.parameters())
        >>> model(torch.ones(3, 2)).sum().backward()
        >>> optimizer.step()
        >>> taken = snapshot(optimizer, model.named_parameters())
        >>> taken.entries["weight"].step
        1
        >>> restore(AdaBelief(other.parameters()), other.named_parameters(), taken)
        >>> bool(torch.equal(model.weight, other.weight))
        True
    """
    entries = {}
    for name, (p, h) in watched(_named(optimizer, named_parameters).items(), "taking"):
        state = optimizer.state.get(p) or {"step": torch.zeros(()), "exp_avg": zeros(p), "exp_avg_var": zeros(p)}
        arrays = {key: to_array(state[theirs]) for key, theirs in _KEYS.items() if theirs in state}
        entries[name] = Entry(int(state["step"]), to_array(p), **arrays, h=h)
    return Snapshot(entries)


def restore(
    optimizer: AdaBelief,
    named_parameters: Iterable[tuple[str, Tensor]],
    snapshot: Snapshot,
    mapping: Moves | None = None,
    *,
    check_hyperparameters: bool = True,
) -> None:
    """Put a run into an optimizer, which goes on bit for bit: its parameters change in place.

    Of a distributed parameter each process keeps its own part, and none communicates.

    Args:
        optimizer: The optimizer. It keeps its own hyperparameters.
        named_parameters: `model.named_parameters()`, which names all of the optimizer's parameters.
        snapshot: What `snapshot` of any adapter took, or `Snapshot.load` read.
        mapping: From the snapshot's names and layouts to the model's; see `Snapshot.moved`. None: they are the same.
        check_hyperparameters: Refuse hyperparameters other than the snapshot's, the learning rate apart.

    Raises:
        ValueError: A parameter has no name, or two, or no partner, another shape or dtype, or no state that an option
            needs; or a hyperparameter differs. Nothing has changed.
    """
    named = _named(optimizer, named_parameters)
    entries = fitted(
        snapshot,
        {name: (tuple(p.shape), str(p.dtype).removeprefix("torch.")) for name, (p, _) in named.items()},
        mapping,
        amsgrad={name: h.amsgrad for name, (_, h) in named.items()},
        kahan_sum={name: bool(h.kahan_sum) for name, (_, h) in named.items()},
    )
    if check_hyperparameters:
        for name, entry in entries.items():
            refuse_other_hyperparameters(name, entry, named[name][1])
    places = {p: name for name, (p, _) in named.items()}
    order = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for index, p in enumerate(watched(order, "restoring")):
        entry, h = entries[places[p]], named[places[p]][1]
        if entry.step == 0:
            continue
        wanted = {"m": True, "s": True, "v": h.amsgrad, "k": bool(h.kahan_sum)}
        moments = {_KEYS[key]: _like(p, getattr(entry, key)) for key, needed in wanted.items() if needed}
        state[index] = {"step": torch.tensor(float(entry.step)), **moments}
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    with torch.no_grad():
        for p in order:
            value = to_tensor(entries[places[p]].p)
            p.copy_(spread(value.to(p.device), p) if layout(p) else value)


def _named(
    optimizer: AdaBelief, named_parameters: Iterable[tuple[str, Tensor]]
) -> dict[str, tuple[Tensor, Hyperparameters]]:
    """Name to parameter and its group's hyperparameters, of all parameters of the optimizer."""
    names: dict[Tensor, str] = {}
    for name, p in named_parameters:
        if names.setdefault(p, name) != name:
            raise ValueError(f"Invalid named_parameters: {names[p]!r} and {name!r} are one parameter")
    found = {}
    for index, group in enumerate(optimizer.param_groups):
        h = read(group, host=True).h
        for position, p in enumerate(group["params"]):
            if p not in names:
                raise ValueError(f"Invalid named_parameters: no name for {label(group, index, position)}")
            found[names[p]] = p, h
    return found


def _like(p: Tensor, x: np.ndarray) -> Tensor:
    """A tensor on the host whose elements follow one another as the parameter's do."""
    value = to_tensor(np.array(x, order="C"))
    return (
        value if layout(p) else torch.empty_like(p, dtype=value.dtype, device="cpu", requires_grad=False).copy_(value)
    )


def to_array(x: Tensor) -> np.ndarray:
    """A copy as a NumPy array, of all of a distributed tensor."""
    return to_numpy((x.detach().full_tensor() if layout(x) else x).cpu()).copy()


def to_tensor(x: np.ndarray, device: str = "cpu") -> Tensor:
    """A tensor of its own memory, with the strides of x."""
    if x.dtype == ml_dtypes.bfloat16:
        return to_tensor(x.view(np.uint16), device).view(torch.bfloat16)
    source = torch.from_numpy(x.copy())
    strides = [stride // x.itemsize for stride in x.strides]
    return torch.empty_strided(x.shape, strides, dtype=source.dtype, device=device).copy_(source)
