"""The command `adabelief`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from adabelief_core import __version__
from adabelief_core.parity import DTYPES
from adabelief_core.parity._process import Report, entry_points, run_all
from adabelief_core.parity._table import render
from adabelief_core.portable._convert import Settings, module_of, read_mapping
from adabelief_core.portable._inspect import describe
from adabelief_core.portable._progress import bar, watching


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; None: those of the process.

    Returns:
        Exit status: 0, or 1 if a mode breaks its promise, an adapter fails, or a file is refused.
    """
    parser = argparse.ArgumentParser(prog="adabelief", description="AdaBelief for PyTorch, Keras 3 and JAX.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    _add_parity(commands)
    _add_files(commands)
    arguments = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    return run(arguments)


def _add_parity(commands: Any) -> None:
    parity = commands.add_parser(
        "parity",
        help="compare every installed framework with the readable rule, bit for bit",
        description="Compare every installed framework's optimizer with the readable rule, bit for bit, at every step. "
        "Exit status 1 if one that promises bits differs.",
    )
    names = list(entry_points())
    parity.set_defaults(run=_parity, names=names)
    parity.add_argument("--adapter", action="append", choices=names, help="only this adapter (repeatable)")
    parity.add_argument("--dtype", action="append", choices=DTYPES, help="only this dtype (repeatable)")
    parity.add_argument("--steps", type=_positive, default=8, help="steps of each run (default: %(default)s)")
    parity.add_argument("--full", action="store_true", help="every pair of options, in minutes")


def _add_files(commands: Any) -> None:
    files = argparse.ArgumentParser(add_help=False)
    files.add_argument(
        "--set",
        action="append",
        type=_option,
        default=[],
        metavar="NAME=VALUE",
        help="a hyperparameter that the file does not say, as JSON: rectify=true (repeatable)",
    )
    files.add_argument(
        "--model", type=Path, metavar="FILE", help="a .keras file of the model, for .weights.h5 and Keras"
    )
    kinds = (
        "Files: .safetensors (this package's own); .pt or .pth (a dict of the model's and the optimizer's state dicts: "
        "adabelief-pytorch's, timm's, torch.optim.Adam's or AdamW's, or ours); .keras; .weights.h5; a folder of Orbax."
    )
    inspect = commands.add_parser(
        "inspect",
        parents=[files],
        help="show what a saved run holds",
        description=f"Show what a saved run holds. {kinds}",
    )
    inspect.add_argument("file", type=Path)
    inspect.set_defaults(run=_on_files, work=_inspect)
    convert = commands.add_parser(
        "convert",
        parents=[files],
        help="turn a saved run into another framework's",
        description=f"Turn a saved run, parameters and optimizer, into another framework's. {kinds}",
    )
    convert.add_argument("source", type=Path)
    convert.add_argument("target", type=Path)
    convert.add_argument(
        "--mapping", type=Path, metavar="FILE", help="JSON: names to new names and layouts, or a table of layers"
    )
    convert.set_defaults(run=_on_files, work=_convert)


def _parity(arguments: argparse.Namespace) -> int:
    done = 0
    chosen = arguments.adapter or arguments.names

    def progress(report: Report) -> None:
        nonlocal done
        done += 1
        print(f"[{done}/{len(chosen)}] {report.name}: {report.summary}", file=sys.stderr)

    print(f"Comparing {len(chosen)} adapters with the readable rule ...", file=sys.stderr)
    reports = run_all(
        chosen, dtypes=arguments.dtype or DTYPES, steps=arguments.steps, full=arguments.full, progress=progress
    )
    print(render(reports))
    return int(any(report.failed for report in reports))


def _on_files(arguments: argparse.Namespace) -> int:
    try:
        with watching(bar):
            arguments.work(arguments, Settings(dict(arguments.set), arguments.model))
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"adabelief: error: {error}", file=sys.stderr)
        return 1
    return 0


def _inspect(arguments: argparse.Namespace, settings: Settings) -> None:
    source = module_of(arguments.file, "file")
    settings.refuse_unused_model(arguments.file)
    print(describe(settings.completed(source.read(arguments.file, settings))))


def _convert(arguments: argparse.Namespace, settings: Settings) -> None:
    mapping = None if arguments.mapping is None else read_mapping(arguments.mapping)
    source, target = module_of(arguments.source, "source"), module_of(arguments.target, "target")
    settings.refuse_unused_model(arguments.source, arguments.target)
    print(f"[1/2] reading {arguments.source} ...", file=sys.stderr)
    snapshot = settings.completed(source.read(arguments.source, settings))
    if mapping is not None:
        snapshot = snapshot.moved(mapping)
    print(f"[2/2] writing {len(snapshot.entries)} parameters to {arguments.target} ...", file=sys.stderr)
    target.write(snapshot, arguments.target, settings)


def _option(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    try:
        if not separator:
            raise ValueError(text)
        found = json.loads(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} (expected NAME=VALUE, the value as JSON: rectify=true)") from None
    return name, tuple(found) if isinstance(found, list) else found


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} (expected an integer >= 1)")
    return value
