"""A snapshot as a table for people."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from adabelief_core._inplace import as_reals
from adabelief_core._text import table
from adabelief_core.portable._progress import watched
from adabelief_core.portable._snapshot import ARRAYS, Entry, Snapshot

_HEADER = ("parameter", "shape", "dtype", "step", "‖m‖", "‖√ŝ‖", "not finite")


def describe(snapshot: Snapshot) -> str:
    """Parameters, the norms of m and √ŝ (Algorithm 2's denominator without ε), and how many numbers are not finite.

    √ŝ needs β2, and is "?" where the hyperparameters are not known or no step has been taken.
    """
    lines = [_HEADER, *(_cells(name, entry) for name, entry in watched(snapshot.entries.items(), "inspecting"))]
    count = sum(entry.p.size for entry in snapshot.entries.values())
    text = [table(lines), "", f"{len(snapshot.entries)} parameters of {count:,} elements"]
    known: dict[str, list[str]] = {}
    for name, entry in snapshot.entries.items():
        options = (
            "not known" if entry.h is None else ", ".join(f"{key}={value}" for key, value in asdict(entry.h).items())
        )
        known.setdefault(options, []).append(name)
    for options, names in known.items():
        of = "" if len(known) == 1 else f" of {', '.join(names)}"
        text.append(f"Hyperparameters{of}: {options}")
    return "\n".join(text)


def _cells(name: str, entry: Entry) -> tuple[str, ...]:
    arrays = [as_reals(x) for key in ARRAYS if (x := getattr(entry, key)) is not None]
    bad = sum(int(np.count_nonzero(~np.isfinite(x))) for x in arrays)
    return (
        name,
        "×".join(map(str, entry.p.shape)) or "scalar",
        entry.p.dtype.name,
        str(entry.step),
        _norm(as_reals(entry.m)),
        _denominator(entry),
        str(bad),
    )


def _denominator(entry: Entry) -> str:
    if entry.h is None or entry.step == 0:
        return "?"
    with np.errstate(invalid="ignore"):
        return _norm(np.sqrt(as_reals(entry.s).astype(np.float64) / (1 - entry.h.betas[1] ** entry.step)))


def _norm(x: np.ndarray) -> str:
    with np.errstate(all="ignore"):
        return f"{np.linalg.norm(x.astype(np.float64).reshape(-1)):.4g}"
