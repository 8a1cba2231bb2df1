"""Where AdaBelief's steps grow without bound, and what `update_clip` makes of it: a CSV, a figure, and a table."""

from __future__ import annotations

import argparse
import csv
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from tqdm import tqdm

from adabelief_core import AdaBelief, __version__
from examples.harness import commit

STEPS = 30_000
ELEMENTS = 16
BOUNDS = (None, 1.0)
"""The values of `update_clip`."""

Gradient = Callable[[np.random.Generator], np.ndarray]


def noise(rng: np.random.Generator) -> np.ndarray:
    """Standard normal numbers."""
    return rng.standard_normal(ELEMENTS).astype(np.float32)


CASES: dict[str, tuple[Gradient, dict[str, object]]] = {
    "constant gradient, 1": (lambda rng: np.ones(ELEMENTS, np.float32), {}),
    "10 + noise": (lambda rng: 10 + noise(rng), {}),
    "10 + noise, clipped to ±1": (lambda rng: np.clip(10 + noise(rng), -1, 1), {}),
    "noise": (noise, {}),
    "noise, β1 = 0": (noise, {"betas": (0.0, 0.999)}),
}
"""Name to the gradient of a step, and the options that are not the defaults."""


def lengths(case: str, update_clip: float | None, steps: int) -> np.ndarray:
    """The longest step of any element, over the learning rate, at each of the first steps: shape (steps,)."""
    gradient, options = CASES[case]
    rng = np.random.default_rng(0)
    params = {"p": np.zeros(ELEMENTS, np.float32)}
    # A rate of 1, and back to 0 after each step: what is left is the step itself, without rounding.
    optimizer = AdaBelief(params, lr=1.0, update_clip=update_clip, **options)
    found = np.empty(steps)
    for t in range(steps):
        params["p"][...] = 0
        optimizer.step({"p": gradient(rng)})
        found[t] = np.abs(params["p"]).max()
    return found


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.landscapes.blow_up", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="300 steps: seconds")
    options = parser.parse_args(argv)
    steps = 300 if options.smoke else STEPS
    out = options.out / "landscapes"
    out.mkdir(parents=True, exist_ok=True)
    pairs = [(case, bound) for case in CASES for bound in BOUNDS]
    origin = {
        "commit": commit(),
        "adabelief": __version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "settings": f"float32, {ELEMENTS} elements, defaults but for the case's name, seed 0",
    }
    found = {pair: lengths(*pair, steps) for pair in tqdm(pairs, unit="run")}
    write_csv(out / "blow_up.csv", found, origin)
    draw(found, out / "blow_up.png", origin)
    print(table(found, steps))
    print(f"\nWritten to {out}: blow_up.csv, blow_up.png")


def marks(steps: int) -> list[int]:
    """The steps that the table shows: powers of ten, and the last."""
    return [*(10**n for n in range(1, 9) if 10**n < steps), steps]


def table(found: dict[tuple[str, float | None], np.ndarray], steps: int) -> str:
    """The longest step over lr at these steps, as Markdown."""
    lines = [
        "The longest step of an element, over lr:\n",
        f"| gradients | update_clip | {' | '.join(f't = {t:,}' for t in marks(steps))} |",
        f"| --- | --- |{' --- |' * len(marks(steps))}",
    ]
    for (case, bound), values in found.items():
        lines.append(f"| {case} | {bound} | {' | '.join(f'{values[t - 1]:,.3g}' for t in marks(steps))} |")
    return "\n".join(lines)


def write_csv(path: Path, found: dict[tuple[str, float | None], np.ndarray], origin: dict[str, str]) -> None:
    """A line for each run and each step that the figure needs: 60 a decade."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["gradients", "update_clip", "step", "length / lr", *origin])
        for (case, bound), values in found.items():
            for t in shown(len(values)):
                writer.writerow([case, bound, t, f"{values[t - 1]:.6g}", *origin.values()])


def shown(steps: int) -> np.ndarray:
    """Steps from 1 to the last, about evenly on a logarithmic axis, with the table's among them."""
    return np.union1d(np.geomspace(1, steps, int(60 * np.log10(steps))).round().astype(int), marks(steps))


def draw(found: dict[tuple[str, float | None], np.ndarray], path: Path, origin: dict[str, str]) -> None:
    """The longest step over the step's number, both logarithmic: without a bound, and with one."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = dict(zip(BOUNDS, figure.subplots(1, len(BOUNDS), sharey=True), strict=True))
    for (case, bound), values in found.items():
        steps = shown(len(values))
        # Constant and clipped gradients give one line: the wider one shows under the other.
        width = 4 if case.startswith("constant") else 1.5
        panels[bound].plot(steps, values[steps - 1], linewidth=width, label=case)
    for bound, axes in panels.items():
        axes.set(xscale="log", yscale="log", xlabel="step", title=f"update_clip={bound}")
        axes.grid(alpha=0.3)
    panels[None].set_ylabel("longest step of an element / lr")
    panels[None].legend(title="gradients", fontsize=8)
    note = " | ".join(f"{name} {value}" for name, value in origin.items())
    figure.text(0.01, -0.01, note, va="top", fontsize=5, family="monospace")
    figure.savefig(path, dpi=90, bbox_inches="tight", metadata={"Description": note})


if __name__ == "__main__":
    sys.exit(main())
