"""Train one classifier on handwritten digits in NumPy, PyTorch, Keras and JAX, and draw the four.

Each training starts from the same weights and sees the same batches in the same order. Their losses
agree as far as the frameworks' matrix products do; below the curves, each framework's optimizer
replays the gradients that the NumPy training recorded, and there every bit is the same.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
RUNS = {"numpy": {}, "torch": {}, "keras": {"KERAS_BACKEND": "tensorflow"}, "jax": {}}
# Wide under narrow, so that curves that coincide can all be seen.
STYLES = {"numpy": (7, "-"), "torch": (4.5, "-"), "keras": (2.5, "-"), "optax": (1.2, "--")}
COLUMNS = ("framework", "mode", "steps", "parameters", "differing bits in", "largest, ulps")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/digits.png"), help="the picture (default: %(default)s)")
    out = parser.parse_args().out.resolve()
    with tempfile.TemporaryDirectory() as folder:
        for name, environment in RUNS.items():
            quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
            command = [sys.executable, HERE / f"train_{name}.py", folder]
            done = subprocess.run(
                command, env={**os.environ, **quiet, **environment}, stderr=subprocess.PIPE, text=True, check=False
            )
            if done.returncode:
                sys.exit(f"{done.stderr}\nThe training in {name} failed.")
        results = {name: json.loads((Path(folder) / f"{name}.json").read_text()) for name in STYLES}
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(results, out)
    rows = [row for result in results.values() for row in result["parity"]]
    identical = sum(row[4] == 0 for row in rows)
    for name, result in results.items():
        print(f"{name:>8}: loss {result['losses'][-1]:.6f}, test accuracy {result['accuracies'][-1]:.1%}")
    print(f"{identical} of {len(rows)} replays of the recorded gradients are bit-identical with the rule.")
    print(f"Picture: {out}")


def draw(results: dict[str, dict], out: Path) -> None:
    """Loss and accuracy on top of each other, and the parity table below."""
    rows = [row for result in results.values() for row in result["parity"]]
    figure = plt.figure(figsize=(10, 5.2 + 0.24 * len(rows)), layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=[4, 0.25 * len(rows) + 0.6])
    for column, key, label in ((0, "losses", "training loss"), (1, "accuracies", "test accuracy")):
        axes = figure.add_subplot(grid[0, column])
        for name, (width, line) in STYLES.items():
            values = results[name][key]
            axes.plot(range(1, len(values) + 1), values, line, linewidth=width, label=name)
        axes.set(xlabel="epoch", title=label)
        axes.grid(alpha=0.3)
        axes.legend()
        if key == "losses":
            axes.set_yscale("log")
    axes = figure.add_subplot(grid[1, :])
    axes.axis("off")
    cells = [[row[0], row[1], f"{row[2]:,}", f"{row[3]:,}", f"{row[4]:,}", f"{row[5]:,}"] for row in rows]
    table = axes.table(
        cells, colLabels=COLUMNS, loc="center", cellLoc="left", colWidths=[0.33, 0.17, 0.1, 0.13, 0.16, 0.14]
    )
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    axes.set_title("The same gradients, replayed: parameters and moments beside the readable rule, at every step")
    figure.suptitle("AdaBelief on scikit-learn's digits, in four frameworks")
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
