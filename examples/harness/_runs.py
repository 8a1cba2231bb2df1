"""Runs: what determines one, training it in a worker process, and a file for each that is finished."""

from __future__ import annotations

import hashlib
import json
import math
import multiprocessing
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

import adabelief_core
import adabelief_torch
from examples.harness._experiment import Experiment, Settings
from examples.harness.optimizers import RIVALS

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """One training: everything that determines its rows, besides the sources and versions.

    Args:
        variant: One of the experiment's.
        optimizer: A key of `RIVALS`.
        lr: Learning rate.
        seed: Of the initial weights, the batches, and all else that is random.
        settings: The experiment's.
        dataset: Name of the data.
        data: Folder of the data, or None.
        eps: AdaBelief's eps, where it is not the settings'.
    """

    variant: str
    optimizer: str
    lr: float
    seed: int
    settings: Settings
    dataset: str
    data: str | None = None
    eps: float | None = None

    def train(self, experiment: Experiment) -> list[dict[str, float]]:
        """The rows of this run, one an epoch: the same rows whenever and wherever this is called."""
        torch.manual_seed(self.seed)
        keywords = {} if self.eps is None else {"eps": self.eps}
        rival = RIVALS[self.optimizer]
        rows = experiment.train(
            self.variant,
            lambda params: rival.make(params, self.lr, self.settings, **keywords),
            self.seed,
            self.settings,
            None if self.data is None else Path(self.data),
            self.dataset,
        )
        return [{name: float(value) for name, value in row.items()} for row in rows]


class Store:
    """The finished runs of one experiment: one JSON file each, named by the hash of everything that determines it."""

    def __init__(self, folder: Path, experiment: Experiment) -> None:
        self.folder = folder
        self.experiment = experiment
        self.sources = sources(experiment)

    def path(self, run: Run) -> Path:
        """Where the finished run is, or will be."""
        identity = {"run": asdict(run), "experiment": self.experiment.name, "sources": self.sources, **versions()}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{run.variant}-{run.optimizer}-{run.lr:g}-{run.seed}-{digest[:16]}.json"

    def read(self, run: Run) -> dict[str, Any] | None:
        """The record of a finished run (`rows` and where they come from), or None."""
        path = self.path(run)
        return json.loads(path.read_text()) if path.exists() else None

    def write(self, run: Run, rows: list[dict[str, float]]) -> None:
        """Keep a finished run; whoever looks finds the whole file or none."""
        record = {"run": asdict(run), "rows": rows, "commit": commit(), **versions()}
        path = self.path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(json.dumps(record))
        part.replace(path)

    def finish(self, runs: list[Run], jobs: int, progress: Callable[[], object]) -> None:
        """Train those of these runs that are not finished.

        Args:
            runs: Any runs.
            jobs: Number of worker processes; 1 trains in this one.
            progress: Called whenever a run is finished.
        """
        missing = [run for run in runs if not self.path(run).exists()]
        for run, rows in trained(self.experiment, missing, jobs):
            self.write(run, rows)
            progress()


def trained(experiment: Experiment, runs: list[Run], jobs: int) -> Iterator[tuple[Run, list[dict[str, float]]]]:
    """Train these runs, in whatever order they end."""
    if jobs == 1:
        torch.set_num_threads(1)
        for run in runs:
            yield run, run.train(experiment)
        return
    waiting = iter(runs)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), begin_worker) as pool:
        try:
            running = {}
            while True:
                # No more than work on at once: what a pool has queued it would still train after an interruption.
                for run in waiting:
                    running[pool.submit(run.train, experiment)] = run
                    if len(running) == jobs:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        except BaseException:
            for worker in multiprocessing.active_children():
                worker.terminate()
            raise


def begin_worker() -> None:
    """One thread a worker, and the parent alone answers Ctrl-C."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def diverged(rows: list[dict[str, float]]) -> bool:
    """Whether a run has ended in numbers that are not finite (or has no rows)."""
    return not rows or not all(math.isfinite(value) for value in rows[-1].values())


def sources(experiment: Experiment) -> str:
    """A digest of the code that determines a run's rows."""
    own = Path(sys.modules[experiment.train.__module__].__file__).parent
    shared = (Path(__file__).with_name(name) for name in ("optimizers.py", "cifar.py"))
    files = [*own.glob("*.py"), *shared, Path(__file__)]
    for package in (adabelief_core, adabelief_torch):
        files += Path(package.__file__).parent.glob("*.py")
    digest = hashlib.sha256()
    for file in sorted(set(files)):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


@cache
def versions() -> dict[str, str]:
    """What was installed."""
    names = ("adabelief", "torch", "numpy", "pytorch_optimizer")
    return {**{name: metadata.version(name) for name in names}, "python": platform.python_version()}


@cache
def commit() -> str:
    """The repository's commit, with "-dirty" where tracked files differ from it, or "unknown"."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        dirty = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("-dirty" if dirty else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
