"""Each adapter in a process of its own: frameworks neither meet in one process nor share a crash.

The child, `python -m adabelief_core.parity NAME`, prints one JSON object a row.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import IO, Any

from adabelief_core.parity._adapter import Adapter, Mode
from adabelief_core.parity._harness import Result, check
from adabelief_core.parity._problems import covering, quick

_GROUP = "adabelief.adapters"
_NOT_INSTALLED = 3
_QUICK_TENSORS = ("scalar", "odd", "strided", "long", "fading", "nonfinite")


@dataclass(frozen=True)
class Row:
    """One line of the table: a mode in a dtype, over all its problems."""

    framework: str
    device: str
    mode: str
    dtype: str
    problems: int
    steps: int
    elements: int
    differing: int
    ulps: int
    promise: int
    note: str
    """Where the first difference stood, or why the promise is not bits."""

    @property
    def broken(self) -> bool:
        """Whether the difference is larger than promised."""
        return self.ulps > self.promise or (self.promise == 0 and self.differing > 0)


@dataclass
class Report:
    """What came of one adapter."""

    name: str
    rows: list[Row] = field(default_factory=list)
    missing: str = ""
    """What is not installed."""
    error: str = ""
    """How the adapter failed."""

    @property
    def failed(self) -> bool:
        """Whether the command should exit with 1 for it."""
        return bool(self.error) or any(row.broken for row in self.rows)

    @property
    def summary(self) -> str:
        """A few words on it."""
        if self.missing:
            return self.missing
        if self.error:
            return "failed"
        return f"{len(self.rows)} comparisons, {sum(row.broken for row in self.rows)} broken"


def entry_points() -> dict[str, metadata.EntryPoint]:
    """Name to entry point, of every adapter that some installed distribution declares; those with backends last."""
    entries = sorted(metadata.entry_points(group=_GROUP), key=lambda entry: ("/" in entry.name, entry.name))
    return {entry.name: entry for entry in entries}


def run_all(
    names: Sequence[str], *, dtypes: Sequence[str], steps: int, full: bool, progress: Callable[[Report], None]
) -> list[Report]:
    """Run the adapters' children, as many at once as there are cores."""

    def run(name: str) -> Report:
        report = _run_child(name, dtypes, steps, full)
        progress(report)
        return report

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(run, names))


def _run_child(name: str, dtypes: Sequence[str], steps: int, full: bool) -> Report:
    framework, _, backend = name.partition("/")
    environment = dict(os.environ)
    if backend:
        environment[f"{framework.upper()}_BACKEND"] = backend
    request = json.dumps({"name": name, "dtypes": list(dtypes), "steps": steps, "full": full})
    child = subprocess.run(
        [sys.executable, "-m", "adabelief_core.parity", request],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode == _NOT_INSTALLED:
        return Report(name, missing=child.stdout.strip())
    if child.returncode:
        return Report(name, error=child.stderr.strip() or f"exit status {child.returncode}")
    return Report(name, [Row(**json.loads(line)) for line in child.stdout.splitlines()])


def run_child(request: dict[str, Any], rows: IO[str]) -> int:
    """The child's part: load one adapter, run its modes, write the rows.

    Returns:
        Exit status.
    """
    try:
        adapter: Adapter = entry_points()[request["name"]].load()
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("adabelief"):
            raise
        rows.write(f"not installed ({error.name})\n")
        return _NOT_INSTALLED
    for mode in adapter.modes():
        for dtype in request["dtypes"]:
            if dtype in mode.dtypes:
                _write_row(rows, adapter.framework, mode, dtype, request["steps"], request["full"])
    return 0


def _write_row(rows: IO[str], framework: str, mode: Mode, dtype: str, steps: int, full: bool) -> None:
    if full:
        problems = covering(dtype, steps=steps)
    else:
        problems = quick(dtype, steps=steps, tensors=_QUICK_TENSORS)[-1 if mode.slow else 0 :]
    results = [check(mode, problem) for problem in problems]
    row = Row(framework, mode.device, mode.name, dtype, len(problems), **_worst(results), promise=mode.ulps, note="")
    first = next((result.first for result in results if result.first), "")
    note = "; ".join(text for text in (first, mode.reason) if text)
    rows.write(json.dumps({**asdict(row), "note": note}) + "\n")


def _worst(results: Iterable[Result]) -> dict[str, int]:
    results = list(results)
    return {
        "steps": sum(result.steps for result in results),
        "elements": max(result.elements for result in results),
        "differing": max(result.differing for result in results),
        "ulps": max(result.ulps for result in results),
    }
