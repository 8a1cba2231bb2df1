"""How PyTorch, Keras and Flax name and lay out the parameters of the same layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np

from adabelief_core.portable._moves import Move

Framework = Literal["torch", "keras", "flax"]
Kind = Literal["dense", "conv1d", "conv2d", "conv3d", "embedding", "norm"]

_SEPARATOR = {"torch": ".", "keras": "/", "flax": "/"}
_NAMES: dict[str, dict[Framework, tuple[str, ...]]] = {
    "kernel": {"torch": ("weight", "bias"), "keras": ("kernel", "bias"), "flax": ("kernel", "bias")},
    "embedding": {"torch": ("weight",), "keras": ("embeddings",), "flax": ("embedding",)},
    "norm": {"torch": ("weight", "bias"), "keras": ("gamma", "beta"), "flax": ("scale", "bias")},
}
# The axes of PyTorch's (out, in, space…), of which Keras' and Flax' (space…, in, out) are made.
_KERNEL_AXES = {"dense": (1, 0), "conv1d": (2, 1, 0), "conv2d": (2, 3, 1, 0), "conv3d": (2, 3, 4, 1, 0)}


def layers(source: Framework, target: Framework, table: Mapping[str, tuple[Kind, str]]) -> Callable[[str], Move]:
    """A mapping for models whose layers correspond, one to one.

    Args:
        source: Whose names and layouts the snapshot has.
        target: Whose it shall have.
        table: A layer's name in the source to its kind and its name in the target. Kinds: "dense", "conv1d", "conv2d",
            "conv3d" (kernel and bias), "embedding", "norm" (batch, layer and group normalisation: scale and offset).

    Returns:
        A function from a parameter's name to a `Move`, for `Snapshot.moved` and `restore`.

    Raises:
        ValueError: An unknown framework or kind. From the function: a parameter of no layer in the table.

    Examples:
        >>> from adabelief_core.portable import layers
        >>> layers("torch", "keras", {"0": ("conv2d", "stem")})("0.weight")
        Move(name='stem/kernel', axes=(2, 3, 1, 0), shape=None)
    """
    for argument, framework in (("source", source), ("target", target)):
        if framework not in get_args(Framework):
            raise ValueError(
                f"Invalid {argument}: {framework!r} (expected one of {', '.join(map(repr, get_args(Framework)))})"
            )
    moves: dict[str, Move] = {}
    for layer, (kind, name) in table.items():
        if kind not in get_args(Kind):
            raise ValueError(
                f"Invalid kind of layer {layer!r}: {kind!r} (expected one of {', '.join(map(repr, get_args(Kind)))})"
            )
        names = _NAMES[kind if kind in _NAMES else "kernel"]
        for index, (old, new) in enumerate(zip(names[source], names[target], strict=True)):
            axes = _axes(kind, source, target) if index == 0 else None
            moves[_joined(layer, old, source)] = Move(_joined(name, new, target), axes)

    def move(name: str) -> Move:
        if name not in moves:
            raise ValueError(f"Invalid mapping: {name!r} belongs to none of the layers {', '.join(map(repr, table))}")
        return moves[name]

    return move


def _axes(kind: Kind, source: Framework, target: Framework) -> tuple[int, ...] | None:
    axes = _KERNEL_AXES.get(kind)
    if axes is None or (source == "torch") == (target == "torch"):
        return None
    return axes if source == "torch" else tuple(int(i) for i in np.argsort(axes))


def _joined(layer: str, name: str, framework: Framework) -> str:
    return f"{layer}{_SEPARATOR[framework]}{name}" if layer else name
