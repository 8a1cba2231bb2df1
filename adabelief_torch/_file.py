"""Files of PyTorch: a dict that `torch.save` wrote, of the model's state dict and the optimizer's."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from dataclasses import fields
from itertools import filterfalse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adabelief_core import Hyperparameters
from adabelief_core.portable import Snapshot, replacing
from adabelief_core.portable._convert import Settings
from adabelief_torch._optimizer import AdaBelief
from adabelief_torch._portable import restore, snapshot, to_tensor

# Of normalisation layers; no optimizer updates them.
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
_OPTIONS = {field.name for field in fields(Hyperparameters)} & set(AdaBelief([torch.zeros(1)]).defaults)


def read(path: Path, settings: Settings) -> Snapshot:
    """Read a run.

    The optimizer's state may be any that `AdaBelief.load_state_dict` takes. Nothing but tensors and plain containers is
    loaded (`weights_only`).

    Args:
        path: The file.
        settings: `options` are what the state dict does not say: adabelief-pytorch's `rectify`, for example.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is no such file, or the names of the parameters are not clear.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(f"Invalid file {os.fspath(path)!r}: {error}") from None
    try:
        return _read(content, settings)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"Invalid file {os.fspath(path)!r}: {error}") from None


def write(taken: Snapshot, path: Path, _: Settings) -> None:
    """Write {"model": …, "optimizer": …}, the state dicts of a model of these parameters and of their optimizer.

    Args:
        taken: The run.
        path: The file.

    Raises:
        OSError: The file cannot be written.
        ValueError: The hyperparameters are not known.
    """
    named = {name: torch.nn.Parameter(to_tensor(entry.p)) for name, entry in taken.entries.items()}
    groups: dict[Hyperparameters, list[tuple[str, Tensor]]] = {}
    for name, entry in taken.entries.items():
        if entry.h is None:
            raise ValueError(f"The hyperparameters of {name!r} are not known (--set lr=… says them)")
        groups.setdefault(entry.h, []).append((name, named[name]))
    optimizer = AdaBelief(
        [{"params": params, **{key: getattr(h, key) for key in _OPTIONS}} for h, params in groups.items()]
    )
    restore(optimizer, named.items(), taken)
    with replacing(path) as temporary:
        torch.save(
            {"model": {name: p.detach() for name, p in named.items()}, "optimizer": optimizer.state_dict()}, temporary
        )


def _read(content: Any, settings: Settings) -> Snapshot:
    optimizers = _found(content, lambda x: isinstance(x.get("state"), Mapping) and "param_groups" in x)
    models = _found(content, lambda x: bool(x) and all(isinstance(value, Tensor) for value in x.values()))
    for what, found in (("an optimizer", optimizers), ("a model", models)):
        if len(found) != 1:
            listed = ", ".join(map(repr, found)) or "none"
            raise ValueError(f"expected one state dict of {what}, found {listed}")
    (state_dict,), (model,) = optimizers.values(), models.values()
    groups = state_dict["param_groups"]
    names = _names(model, state_dict)
    named = {name: torch.nn.Parameter(model[name]) for name in names.values()}
    new = [{"params": [named[names[key]] for key in group["params"]]} for group in groups]
    optimizer = AdaBelief(new, **settings.options)
    optimizer.load_state_dict(state_dict)
    return snapshot(optimizer, named.items())


def _found(content: Any, is_it: Any) -> dict[str, Mapping[str, Any]]:
    if not isinstance(content, Mapping):
        raise ValueError(f"expected a dict of state dicts, found {type(content).__name__}")
    return {str(key): value for key, value in content.items() if isinstance(value, Mapping) and is_it(value)}


def _names(model: Mapping[str, Tensor], state_dict: Mapping[str, Any]) -> dict[Any, str]:
    """A parameter's key in the optimizer's state dict to its name in the model's.

    Where the optimizer was not given names, the order of both says it, and the shapes must agree.
    """
    groups, state = state_dict["param_groups"], state_dict["state"]
    if all("param_names" in group for group in groups):
        return {key: name for group in groups for key, name in zip(group["params"], group["param_names"], strict=True)}
    keys = sorted(key for group in groups for key in group["params"])
    names = list(filterfalse(lambda name: name.endswith(_BUFFERS), model))
    if len(keys) != len(names):
        raise ValueError(
            f"the optimizer has {len(keys)} parameters, the model {len(names)}: {', '.join(map(repr, names))} (an "
            "optimizer made with model.named_parameters() says which is which)"
        )
    for key, name in zip(keys, names, strict=True):
        moment = state.get(key, {}).get("exp_avg")  # without one, load_state_dict has the words for it
        if moment is not None and moment.shape != model[name].shape:
            raise ValueError(
                f"the optimizer's parameter {key} has shape {list(moment.shape)}, the model's {name!r} "
                f"{list(model[name].shape)}"
            )
    return dict(zip(keys, names, strict=True))
