"""All optimizers on the toy landscapes: a CSV, a PNG a landscape, an animation, and a table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from examples.harness import RIVALS, Settings
from examples.landscapes.figures import animate, draw
from examples.landscapes.functions import LANDSCAPES
from examples.landscapes.trajectories import GRID, NEAR, ROUNDING, STEPS, Trajectory, best, every, provenance, write_csv


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.landscapes", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("results"), help="folder (default: %(default)s)")
    parser.add_argument("--only", help=f"some of {','.join(LANDSCAPES)}")
    parser.add_argument("--smoke", action="store_true", help="a few steps, one learning rate: seconds")
    options = parser.parse_args(argv)
    names = list(LANDSCAPES) if options.only is None else options.only.split(",")
    for name in names:
        if name not in LANDSCAPES:
            parser.error(f"Invalid --only: {name!r} (expected some of {','.join(LANDSCAPES)})")
    torch.set_num_threads(1)
    settings = Settings(epochs=10 if options.smoke else STEPS, batch_size=1)
    grid = (1e-2,) if options.smoke else GRID
    out = options.out / "landscapes"
    out.mkdir(parents=True, exist_ok=True)

    origin = provenance(settings)
    found: list[Trajectory] = []
    with tqdm(total=len(names) * len(RIVALS) * len(grid), unit="run") as progress:
        for name in names:
            for path in every(LANDSCAPES[name], list(RIVALS), grid, settings):
                found.append(path)
                progress.update()
    write_csv(out / "landscapes.csv", found, origin)
    chosen = {name: best([path for path in found if path.landscape == name]) for name in names}
    for name, paths in chosen.items():
        draw(paths, out / f"{name}.png", origin)
    animate(chosen, out / "landscapes.gif", frames=3 if options.smoke else 48)
    print(table(chosen, settings.epochs))
    print(f"\nWritten to {out}: landscapes.csv, landscapes.gif, {', '.join(f'{name}.png' for name in names)}")


def table(chosen: dict[str, list[Trajectory]], steps: int) -> str:
    """What each optimizer's best learning rate came to on each landscape, as Markdown, and how AdaBelief did."""
    lines = [
        f"After {steps} steps: mean value over the last tenth (minimum: 0); learning rate; the step from which on the "
        f"value stays below {NEAR:g} of the first, which decides between those that are below {ROUNDING:g}.\n",
        "| | " + " | ".join(LANDSCAPES[name].formula.replace("|", "\\|") for name in chosen) + " |",
        "| --- |" + " --- |" * len(chosen),
    ]
    for optimizer in RIVALS:
        row = [RIVALS[optimizer].label]
        for paths in chosen.values():
            path = of(paths, optimizer)
            cell = f"{path.loss:.1e}; {path.lr:g}; {'-' if path.arrival is None else path.arrival}"
            row.append(f"**{cell}**" if path.rank == paths[0].rank else cell)
        lines.append(f"| {' | '.join(row)} |")
    places = []
    for name, paths in chosen.items():
        ours = of(paths, "adabelief").rank
        place = 1 + sum(path.rank < ours for path in paths)
        others = [RIVALS[path.optimizer].label for path in paths if path.rank == ours and path.optimizer != "adabelief"]
        first = "" if place == 1 else f" (first: {RIVALS[paths[0].optimizer].label})"
        places.append(f"{place} on {name}{first}" + (f" (shared with {', '.join(others)})" if others else ""))
    return "\n".join([*lines, f"\nAdaBelief's place among {len(RIVALS)}: {'; '.join(places)}."])


def of(paths: Sequence[Trajectory], optimizer: str) -> Trajectory:
    """That of this optimizer."""
    return next(path for path in paths if path.optimizer == optimizer)


if __name__ == "__main__":
    sys.exit(main())
