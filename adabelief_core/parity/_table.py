"""The parity table as text."""

from __future__ import annotations

from collections.abc import Sequence

from adabelief_core._text import table
from adabelief_core.parity._process import Report, Row

_HEADER = ("framework", "device", "mode", "dtype", "runs", "steps", "differ", "ulps", "promise", "")


def render(reports: Sequence[Report]) -> str:
    """The table, then the notes, then one sentence."""
    lines = [_HEADER, *(_cells(row) for report in reports for row in report.rows)]
    lines += [
        (report.name, "-", "-", "-", "-", "-", "-", "-", "-", report.missing) for report in reports if report.missing
    ]
    text = [table(lines)]
    text += [f"\n{report.name} failed:\n{report.error}" for report in reports if report.error]
    rows = [row for report in reports for row in report.rows]
    broken = sum(row.broken for row in rows)
    kept = sum(row.promise == 0 and not row.broken for row in rows)
    text.append(
        f"\n{kept} of {len(rows)} comparisons bit-identical with the readable rule, as promised; {broken} broken. "
        "'differ': the most elements, of the parameters or of one moment, whose bits differed at one step."
    )
    return "\n".join(text)


def _cells(row: Row) -> tuple[str, ...]:
    verdict = "BROKEN" if row.broken else "ok"
    note = f"{verdict}: {row.note}" if row.note else verdict
    return (
        row.framework,
        row.device,
        row.mode,
        row.dtype,
        str(row.problems),
        str(row.steps),
        f"{row.differing:,} of {row.elements:,}",
        f"{row.ulps:,}",
        f"<= {row.promise} ulps" if row.promise else "bits",
        note,
    )
