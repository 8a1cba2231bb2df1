"""Files of all frameworks, by the ends of their names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping as MappingABC
from dataclasses import dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from adabelief_core._hyperparameters import Hyperparameters
from adabelief_core.portable._layers import layers
from adabelief_core.portable._moves import Mapping, Move
from adabelief_core.portable._snapshot import Snapshot

_MODULES = {
    ".safetensors": "adabelief_core.portable._convert",
    ".pt": "adabelief_torch._file",
    ".pth": "adabelief_torch._file",
    ".keras": "adabelief_tf._file",
    ".weights.h5": "adabelief_tf._file",
    "": "adabelief_jax._file",
}
"""The end of a file's name to the module whose `read` and `write` know it; without any, it is a folder of Orbax."""


@dataclass(frozen=True)
class Settings:
    """What a file does not say by itself."""

    options: MappingABC[str, Any] = field(default_factory=dict)
    """Hyperparameters by the names of `Hyperparameters`."""
    model: Path | None = None
    """A .keras file of the model, for its architecture."""

    def __post_init__(self) -> None:
        known = [field.name for field in fields(Hyperparameters)]
        for name, value in self.options.items():
            if name not in known:
                raise ValueError(f"Invalid --set {name}={value!r} (expected one of {', '.join(known)})")

    def refuse_unused_model(self, source: Path, target: Path | None = None) -> None:
        """Refuse a model that neither the file to read nor that to write needs."""
        needed = source.name.endswith(".weights.h5") or (target and target.name.endswith((".weights.h5", ".keras")))
        if self.model is not None and not needed:
            raise ValueError(f"Invalid --model: {os.fspath(self.model)!r} (none of these files needs a model)")

    def completed(self, taken: Snapshot) -> Snapshot:
        """The run with these hyperparameters where its file said none.

        Raises:
            ValueError: The file says another value.
        """
        if not self.options:
            return taken
        given = Hyperparameters(**{"lr": 1e-3, **self.options})
        for name, entry in taken.entries.items():
            for key in self.options if entry.h else ():
                ours, said = getattr(given, key), getattr(entry.h, key)
                if ours != said:
                    raise ValueError(f"Invalid --set {key}={ours!r} (the file says {said!r} of {name!r})")
        return Snapshot({name: replace(entry, h=entry.h or given) for name, entry in taken.entries.items()})


def read(path: Path, _: Settings) -> Snapshot:
    """Read the file of a snapshot."""
    return Snapshot.load(path)


def write(snapshot: Snapshot, path: Path, _: Settings) -> None:
    """Write the file of a snapshot."""
    snapshot.save(path)


def module_of(path: Path, argument: str) -> Any:
    """The module whose `read` and `write` know files of this name.

    Raises:
        ValueError: None does.
        ModuleNotFoundError: Its framework is not installed.
    """
    for suffix, module in _MODULES.items():
        if path.name.endswith(suffix) if suffix else not path.suffix:
            return import_module(module)
    known = ", ".join(filter(None, _MODULES))
    raise ValueError(
        f"Invalid {argument}: {os.fspath(path)!r} (expected a name that ends in {known}, or a folder of Orbax)"
    )


def read_mapping(path: Path) -> Mapping:
    """A mapping from a JSON file.

    Either an object of names to new names, or to {"name": …, "axes": […], "shape": […]}; or the three arguments of
    `layers`: {"source": "torch", "target": "keras", "layers": {"0": ["dense", "stem"]}}.

    Raises:
        ValueError: The file says neither.
    """
    try:
        content = json.loads(path.read_text())
        if set(content) == {"source", "target", "layers"}:
            table = {layer: (kind, name) for layer, (kind, name) in content["layers"].items()}
            return layers(content["source"], content["target"], table)
        return {name: to if isinstance(to, str) else _move(**to) for name, to in content.items()}
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"Invalid mapping {os.fspath(path)!r}: {error}") from None


def _move(name: str, axes: list[int] | None = None, shape: list[int] | None = None) -> Move:
    return Move(name, None if axes is None else tuple(axes), None if shape is None else tuple(shape))
