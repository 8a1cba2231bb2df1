"""Run all benchmarks on this machine: a table on the screen, in results.csv, and a picture, results.png."""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
SCRIPTS = (
    (["bench_torch.py"], {}),
    (["bench_torch.py", "slow"], {}),
    (["bench_cuda.py"], {}),
    (["bench_jax.py"], {}),
    *((["bench_keras.py"], {"KERAS_BACKEND": backend}) for backend in ("tensorflow", "jax", "torch")),
)
COLUMNS = ("case", "contender", "median ms", "ours / it", "note")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.csv and results.png")
    parser.add_argument("--runs", type=int, default=3, help="processes a script; medians of theirs are shown")
    options = parser.parse_args()
    if options.runs < 1:
        parser.error(f"argument --runs: {options.runs} (expected at least 1)")
    out, cases = options.out, []
    for number, (command, environment) in enumerate(SCRIPTS, 1):
        print(f"[{number}/{len(SCRIPTS)}] {' '.join(command)} {environment or ''}", file=sys.stderr)
        env = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **environment}
        script = [sys.executable, HERE / command[0], *command[1:]]
        # Two processes differ by more than two rounds of one, so there are several.
        reports = [
            [json.loads(line) for line in output(script, env).splitlines() if line.startswith('{"case"')]
            for _ in range(options.runs)
        ]
        cases += [together(list(same)) for same in zip(*reports, strict=True)]
    rows = [
        (case["case"], name, f"{ms:.2f}", f"{case['ratios'][name]:.2f}", case["notes"].get(name, ""))
        for case in cases
        for name, ms in case["times"].items()
    ]
    widths = [max(len(row[i]) for row in [COLUMNS, *rows]) for i in range(len(COLUMNS))]
    for row in [COLUMNS, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    out.mkdir(parents=True, exist_ok=True)
    with (out / "results.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    draw(cases, out / "results.png")
    print(f"\n{platform.machine()}, {os.cpu_count()} cores. Written: {out / 'results.csv'}, {out / 'results.png'}")


def output(command: list, env: dict[str, str]) -> str:
    """What a process prints."""
    return subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True).stdout


def together(reports: list[dict]) -> dict:
    """One case's reports as one: medians of the times, and of the ratios, of which each is of one process."""
    times = [report["times"] for report in reports]
    ours = reports[0]["ours"]
    return {
        **reports[0],
        "times": {name: statistics.median(x[name] for x in times) for name in times[0]},
        "ratios": {name: statistics.median(x[ours] / x[name] for x in times) for name in times[0]},
    }


def draw(cases: list[dict], path: Path) -> None:
    """One panel a case: medians as bars, ours in colour."""
    figure, axes = plt.subplots(len(cases), figsize=(9, 1.1 + 1.5 * len(cases)), layout="constrained")
    for panel, case in zip(axes, cases, strict=True):
        names = list(case["times"])[::-1]
        colors = ["tab:blue" if name == case["ours"] else "lightgrey" for name in names]
        bars = panel.barh(names, [case["times"][name] for name in names], color=colors)
        panel.bar_label(bars, fmt="%.2f ms", padding=3)
        panel.set_title(case["case"], fontsize=10)
        panel.margins(x=0.2)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
