"""What the four trainings share: data, initial weights, batches, and how results are kept."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from tqdm import tqdm

from adabelief_core.parity import Problem, check
from adabelief_core.parity._process import entry_points

LAYERS = (64, 64, 32, 10)
LEARNING_RATE = 1e-3
BATCH = 64
EPOCHS = 30


def data() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 handwritten digits: (train x, train y, test x, test y).

    x: float32, shape (n, 64), 8×8 pixels in [0, 1]. y: int32, shape (n,).
    """
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x, y = (digits.data[order] / 16).astype(np.float32), digits.target[order].astype(np.int32)
    return x[360:], y[360:], x[:360], y[:360]


def initial_weights() -> dict[str, np.ndarray]:
    """Name to float32 array: `kernel0` of shape (inputs, outputs), `bias0` of shape (outputs,), …"""
    rng = np.random.default_rng(1)
    weights = {}
    for i, (inputs, outputs) in enumerate(pairwise(LAYERS)):
        weights[f"kernel{i}"] = (rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)).astype(np.float32)
        weights[f"bias{i}"] = np.zeros(outputs, np.float32)
    return weights


def epochs(name: str) -> Iterator[list[np.ndarray]]:
    """The indices of each epoch's batches, the same for all; shows progress under this name."""
    rng = np.random.default_rng(2)
    examples = len(data()[0])
    for _ in tqdm(range(EPOCHS), desc=f"{name:>8}", unit="epoch", file=sys.stdout):
        order = rng.permutation(examples)
        yield [order[i : i + BATCH] for i in range(0, examples - BATCH + 1, BATCH)]


@dataclass(frozen=True)
class Recorded(Problem):
    """The gradients that the NumPy training saw, as a problem for the parity harness."""

    folder: Path = Path()

    def params(self) -> dict[str, np.ndarray]:
        """The initial weights."""
        return initial_weights()

    def grads(self) -> Iterator[dict[str, np.ndarray]]:
        """The recorded gradients of each step."""
        with np.load(self.folder / "gradients.npz") as stream:
            recorded = {name: stream[name] for name in stream.files}
        for step in range(self.steps):
            yield {name: g[step] for name, g in recorded.items()}


def finish(name: str, folder: Path, losses: list[float], accuracies: list[float]) -> None:
    """Replay the recorded gradients with every mode of this framework's optimizer, and keep the results.

    Args:
        name: The adapter's entry point.
        folder: Where the results go, as `<name>.json`.
        losses: Mean training loss of each epoch.
        accuracies: Test accuracy after each epoch.
    """
    with np.load(folder / "gradients.npz") as stream:
        steps = len(stream["bias0"])
    problem = Recorded("digits", "float32", {}, steps=steps, lr=LEARNING_RATE, folder=folder)
    adapter = entry_points()[name].load()
    rows = []
    for mode in tqdm(adapter.modes(), desc=f"{name.partition('/')[0]:>8}", unit="mode", file=sys.stdout):
        result = check(mode, problem)
        rows.append((adapter.framework, mode.name, result.steps, result.elements, result.differing, result.ulps))
    results = {"losses": losses, "accuracies": accuracies, "parity": rows}
    (folder / f"{name.partition('/')[0]}.json").write_text(json.dumps(results))
