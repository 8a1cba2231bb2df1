"""A snapshot as one `.safetensors` file: arrays under "p/NAME", "m/NAME", …, and the rest as JSON in its metadata."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from adabelief_core._hyperparameters import Hyperparameters
from adabelief_core._inplace import as_reals
from adabelief_core.portable._progress import watched
from adabelief_core.portable._snapshot import ARRAYS, Entry

FORMAT = "adabelief"
VERSION = 1
_MEANING = {
    "eps": "added to the denominator, after the bias correction",
    "eps_root": "added to the second moment at every step, in which it stays; null: the value of eps",
    "lr": "of the last step",
    "update_clip": "bound of each element of n / (√v·c + ε), before its bias correction k; null: none",
    "complex": "pairs of reals on a last axis of their own",
}


def save(entries: Mapping[str, Entry], path: str | os.PathLike[str]) -> None:
    """See `Snapshot.save`."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = Path(path)
    arrays: dict[str, np.ndarray] = {}
    parameters: dict[str, Any] = {}
    known: dict[Hyperparameters, int] = {}
    for name, entry in entries.items():
        for key in ARRAYS:
            x = getattr(entry, key)
            if x is not None:
                arrays[f"{key}/{name}"] = np.asarray(as_reals(x), order="C")
        index = None if entry.h is None else known.setdefault(entry.h, len(known))
        parameters[name] = {"step": entry.step, "dtype": entry.p.dtype.name, "hyperparameters": index}
    run = json.dumps({"parameters": parameters, "hyperparameters": [asdict(h) for h in known], "meaning": _MEANING})
    metadata = {"format": FORMAT, "version": str(VERSION), "run": run, "sha256": _digest(run, arrays)}
    with replacing(path) as temporary:
        try:
            save_file(arrays, temporary, metadata)
        except SafetensorError as error:
            raise OSError(f"Cannot write {os.fspath(path)!r}: {error}") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, beside this one, which gets its name once it is whole and on the disk.

    A process that is killed leaves the old file or the new one.
    """
    # Processes of several machines may share the folder, and their numbers.
    temporary = path.with_name(f".{uuid.uuid4().hex[:16]}.{path.name}")
    try:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    if os.name == "posix":  # elsewhere a folder cannot be opened
        _sync(path.parent)


def load(path: str | os.PathLike[str]) -> dict[str, Entry]:
    """See `Snapshot.load`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(os.fspath(path), "np") as file:
            metadata = file.metadata() or {}
            _check_format(metadata, path)
            keys = list(file.keys())
            if any(file.get_slice(key).get_dtype() == "BF16" for key in keys):
                import ml_dtypes  # noqa: F401 - NumPy knows bfloat16 from then on
            arrays = {key: file.get_tensor(key) for key in watched(keys, "reading")}
    except SafetensorError as error:
        raise ValueError(f"Invalid file {os.fspath(path)!r}: no safetensors file, or a damaged one ({error})") from None
    if metadata.get("sha256") != _digest(metadata.get("run", ""), arrays):
        raise ValueError(f"Invalid file {os.fspath(path)!r}: it was altered since it was written (another SHA-256)")
    run = json.loads(metadata["run"])
    known = [Hyperparameters(**{**h, "betas": tuple(h["betas"])}) for h in run["hyperparameters"]]
    entries = {}
    for name, about in run["parameters"].items():
        found = {key: arrays[f"{key}/{name}"] for key in ARRAYS if f"{key}/{name}" in arrays}
        if np.dtype(found["p"].dtype).kind == "f" and about["dtype"].startswith("complex"):
            found = {key: _joined(x) for key, x in found.items()}
        index = about["hyperparameters"]
        entries[name] = Entry(about["step"], **found, h=None if index is None else known[index])
    return entries


def _check_format(metadata: Mapping[str, str], path: str | os.PathLike[str]) -> None:
    if metadata.get("format") != FORMAT:
        raise ValueError(f"Invalid file {os.fspath(path)!r}: a safetensors file, but no snapshot of adabelief")
    version = metadata.get("version", "")
    if version != str(VERSION):
        raise ValueError(
            f"Invalid file {os.fspath(path)!r}: a snapshot of format version {version!r} (this adabelief reads "
            f"version {VERSION})"
        )


def _joined(x: np.ndarray) -> np.ndarray:
    return x.view(np.result_type(x.dtype, np.complex64))[..., 0]


def _digest(run: str, arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256(run.encode())
    for key, x in watched(sorted(arrays.items()), "checking"):
        digest.update(f"\n{key} {x.dtype.name} {list(x.shape)}\n".encode())
        digest.update(x.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    """Wait until the disk has it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
