"""The table of docs/algorithm.md shows every line of the rule's code, beside the step that it does."""

import ast
import inspect
import re

import pytest
from pages import ROOT

from adabelief_core import belief, update

PAGE = (ROOT / "docs" / "algorithm.md").read_text()


def of_source():
    """(code, numbers in its comment) of each line of the two functions, signature and docstring apart."""
    lines = []
    for function in (belief, update):
        source = inspect.getsource(function)
        body = ast.parse(source).body[0].body
        for line in source.splitlines()[body[1].lineno - 1 :]:
            code, _, comment = line.partition("  # ")
            lines.append((code.strip(), re.findall(r"\b\d+\b", comment.replace("3 to 8", ""))))
    return lines


def of_table(page):
    """(code, number of its row) of each piece of code in the table; a row without a number belongs to the one above."""
    lines, number = [], ""
    for row in re.findall(r"^\| .*\|$", page.partition("\n## ")[0], re.M):
        first, _, code, *_ = (cell.strip() for cell in row.strip("|").split("|"))
        number = first or number
        lines += [(piece, number) for piece in re.findall(r"`([^`]+)`", code) if not piece.endswith("_rule.py")]
    return lines


def check(page):
    source, table = of_source(), of_table(page)
    assert sorted(code for code, _ in source) == sorted(code for code, _ in table)
    for code, numbers in source:
        assert not numbers or {number for piece, number in table if piece == code} <= set(numbers), code


def test_the_table_is_the_code():
    assert len(of_source()) > 20
    check(PAGE)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`r = g - m`", "`r = g`"),
        ("| `v = xp.maximum(v, s) if variant.amsgrad else s` |", "| |"),
        ("| 10 | Δ", "| 12 | Δ"),
    ],
)
def test_a_table_that_is_stale_is_seen(old, new):
    assert old in PAGE
    with pytest.raises(AssertionError):
        check(PAGE.replace(old, new))
