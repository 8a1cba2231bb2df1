"""The command `adabelief`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from adabelief_core import __version__
from adabelief_core.parity import DTYPES
from adabelief_core.parity._process import Report, entry_points, run_all
from adabelief_core.parity._table import render


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments; None: those of the process.

    Returns:
        Exit status: 0, or 1 if a mode breaks its promise or an adapter fails.
    """
    names = list(entry_points())
    parser = argparse.ArgumentParser(prog="adabelief", description="AdaBelief for PyTorch, Keras 3 and JAX.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    parity = commands.add_parser(
        "parity",
        help="compare every installed framework with the readable rule, bit for bit",
        description="Compare every installed framework's optimizer with the readable rule, bit for bit, at every step. "
        "Exit status 1 if one that promises bits differs.",
    )
    parity.add_argument("--adapter", action="append", choices=names, help="only this adapter (repeatable)")
    parity.add_argument("--dtype", action="append", choices=DTYPES, help="only this dtype (repeatable)")
    parity.add_argument("--steps", type=_positive, default=8, help="steps of each run (default: %(default)s)")
    parity.add_argument("--full", action="store_true", help="every pair of options, in minutes")
    arguments = parser.parse_args(argv)

    done = 0
    chosen = arguments.adapter or names

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


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} (expected an integer >= 1)")
    return value
