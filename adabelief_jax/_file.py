"""Folders of Orbax: a tree with parameters and an optimizer's state in it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from adabelief_core.portable import Entry, Snapshot
from adabelief_core.portable._convert import Settings
from adabelief_core.portable._progress import watched
from adabelief_jax._portable import _FIELDS, _named, optimizer_of, restore


def read(path: Path, _: Settings) -> Snapshot:
    """Read a run: the one state of AdaBelief in the tree, and the parameters of its names and shapes beside it.

    Args:
        path: What `orbax.checkpoint.StandardCheckpointer` saved. It does not say the hyperparameters.

    Raises:
        OSError: The folder cannot be read.
        ValueError: It holds no state of AdaBelief, or several; or no such parameters, or several.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"No folder of Orbax: {os.fspath(path)!r}")
    with ocp.StandardCheckpointer() as checkpointer, jax.enable_x64(True):
        try:
            tree = jax.tree.map(np.asarray, checkpointer.restore(path.absolute()))
        except (KeyError, ValueError) as error:
            raise ValueError(f"Invalid folder {os.fspath(path)!r}: {error}") from None
    beliefs = {where: node for where, node in _nodes(tree) if {"count", "mu", "nu"} <= node.keys()}
    if len(beliefs) != 1:
        raise ValueError(
            f"Invalid folder {os.fspath(path)!r}: expected one state of AdaBelief, found {_listed(beliefs)}"
        )
    ((home, belief),) = beliefs.items()
    moments = {key: _named(belief[field]) for key, field in _FIELDS.items() if belief.get(field) is not None}
    shapes = {name: x.shape for name, x in moments["m"].items()}
    params = {
        where: named
        for where, node in _nodes(tree)
        # Not the moments, nor what else the optimizer keeps of this kind.
        if where[:1] != home[:1]
        for named in [_named(node)]
        if {name: x.shape for name, x in named.items()} == shapes
    }
    if len(params) != 1:
        raise ValueError(
            f"Invalid folder {os.fspath(path)!r}: expected one tree of the parameters that the state has, found "
            f"{_listed(params)}"
        )
    (leaves,) = params.values()
    return Snapshot(
        {
            name: Entry(int(belief["count"]), leaves[name], **{key: x[name] for key, x in moments.items()})
            for name in watched(shapes, "taking")
        }
    )


def write(taken: Snapshot, path: Path, _: Settings) -> None:
    """Write {"params": …, "opt_state": …} of `adabelief_jax.adabelief`, where "a/b" is {"a": {"b": …}}.

    Args:
        taken: The run, with one set of hyperparameters for all parameters.
        path: A folder that does not exist.

    Raises:
        OSError, ValueError: The folder exists, or the run is none of one `adabelief`.
    """
    if path.exists():
        raise FileExistsError(f"{os.fspath(path)!r} exists (Orbax writes new folders alone)")
    h = taken.hyperparameters
    if h.maximize:
        raise ValueError("Invalid maximize: True (Optax ascends by negating the gradients outside)")
    with jax.enable_x64(any(entry.p.dtype.itemsize > 4 for entry in taken.entries.values())):
        params: dict[str, Any] = {}
        for name, entry in watched(taken.entries.items(), "restoring"):
            *folders, leaf = name.split("/")
            node = params
            for folder in folders:
                node = node.setdefault(folder, {})
            node[leaf] = jnp.asarray(entry.p)
        optimizer = optimizer_of(h)
        opt_state, params = restore(optimizer.init(params), params, taken)
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.absolute(), {"params": params, "opt_state": opt_state})


def _nodes(tree: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """Every dict in a tree, itself included, and the keys that lead there."""
    if isinstance(tree, Mapping):
        yield where, tree
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in items:
        yield from _nodes(value, (*where, key))


def _listed(found: Mapping[tuple[Any, ...], Any]) -> str:
    return ", ".join(repr("/".join(map(str, where))) for where in found) or "none"
