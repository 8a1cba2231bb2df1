"""The command of an experiment."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tqdm import tqdm

from examples.harness._experiment import DataError, Experiment, Settings
from examples.harness._figure import draw
from examples.harness._plan import Plan, swept, tuned
from examples.harness._results import read_csv, table, write_csv
from examples.harness._runs import Run, Store
from examples.harness.optimizers import RIVALS


def main(experiment: Experiment, argv: Sequence[str] | None = None) -> int:
    """Run an experiment as the command line asks, and write its CSV, figure and table.

    Args:
        experiment: The experiment.
        argv: The arguments; None: those of the process.

    Returns:
        The exit status: 0, 2 for data that is not what was expected, or 130 after Ctrl-C.
    """
    options = parse(experiment, argv)
    plan = make_plan(experiment, options)
    folder = options.out / experiment.name
    store = Store(folder / "runs", experiment)
    name = experiment.name + ("_eps" if options.eps else "")
    bar = tqdm(total=0, unit="run", desc=name)

    def train(runs: list[Run]) -> None:
        bar.total += len(runs)
        bar.update(sum(store.path(run).exists() for run in runs))
        store.finish(runs, options.jobs, bar.update)

    try:
        with bar:
            runs = (swept if options.eps else tuned)(plan, store, train)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. Finished runs are kept; the same command goes on.", file=sys.stderr)
        return 130
    csv, png, md = (folder / f"{name}.{suffix}" for suffix in ("csv", "png", "md"))
    write_csv(csv, experiment, store, runs)
    lines = read_csv(csv)
    draw(lines, png, experiment.title + (": eps of AdaBelief" if options.eps else ""))
    text = table(lines)
    md.write_text(text + "\n")
    print(text)
    print(f"\nWritten: {csv}, {png}, {md}")
    return 0


def parse(experiment: Experiment, argv: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked."""
    default, *local = experiment.datasets
    parser = argparse.ArgumentParser(
        prog=f"python -m examples.{experiment.name}",
        description=f"{experiment.title}. Every optimizer is tuned on its own grid of learning rates with one seed, "
        "then trained with others. Interrupted, the same command goes on where it was.",
    )
    parser.add_argument("--dataset", choices=experiment.datasets, default=default, help="default: %(default)s")
    parser.add_argument("--data", type=Path, metavar="FOLDER", help=f"where {', '.join(local) or 'the data'} is")
    parser.add_argument("--paper", action="store_true", help="the paper's settings and epochs; needs --data")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER", help="default: %(default)s")
    rivals, variants = tuple(RIVALS), experiment.variants
    parser.add_argument("--optimizers", type=names(rivals), default=rivals, metavar="A,B", help=", ".join(rivals))
    parser.add_argument("--variants", type=names(variants), metavar="A,B", help=", ".join(variants))
    parser.add_argument("--seeds", type=positive, default=3, help="of the final runs (default: %(default)s)")
    parser.add_argument("--jobs", type=positive, default=1, help="worker processes (default: %(default)s)")
    parser.add_argument("--smoke", action="store_true", help="seconds: a tiny budget, one learning rate and one seed")
    parser.add_argument("--eps", action="store_true", help="sweep AdaBelief's eps in place of comparing optimizers")
    options = parser.parse_args(argv)
    if (options.dataset == default) != (options.data is None):
        parser.error(f"--data FOLDER goes with --dataset {' or '.join(local) or '(this experiment has no other)'}")
    if options.paper and options.dataset not in experiment.paper:
        known = ", ".join(experiment.paper) or "none"
        parser.error(f"--paper: the paper has no settings for --dataset {options.dataset} (it has for: {known})")
    options.settings = experiment.paper[options.dataset] if options.paper else experiment.settings
    options.variants = options.variants or tuple(options.settings)
    for variant in options.variants:
        if variant not in options.settings:
            parser.error(f"--variants: the paper has no {variant} on {options.dataset}")
    return options


def names(known: Sequence[str]):
    """An argparse type: names separated by commas, each known, in the order known."""

    def parse_names(text: str) -> tuple[str, ...]:
        given = text.split(",")
        for name in given:
            if name not in known:
                raise argparse.ArgumentTypeError(f"unknown: {name!r} (expected some of {', '.join(known)})")
        return tuple(name for name in known if name in given)

    return parse_names


def positive(text: str) -> int:
    """An argparse type: an integer >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"invalid: {text!r} (expected an integer >= 1)")
    return int(text)


def make_plan(experiment: Experiment, options: argparse.Namespace) -> Plan:
    """The plan that the options ask for."""
    chosen = {variant: options.settings[variant] for variant in options.variants}
    if options.smoke:
        chosen = {variant: smoke(experiment, value) for variant, value in chosen.items()}
    return Plan(
        experiment,
        chosen,
        options.optimizers,
        1 if options.smoke else options.seeds,
        options.smoke,
        options.dataset,
        None if options.data is None else str(options.data.resolve()),
    )


def smoke(experiment: Experiment, settings: Settings) -> Settings:
    """The settings with what `Experiment.smoke` replaces."""
    merged = {
        name: {**asdict(settings)[name], **value} if name in ("extra", "overrides") else value
        for name, value in experiment.smoke.items()
    }
    return replace(settings, **merged)
