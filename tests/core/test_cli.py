"""The command line: what the table says, and the exit status."""

import io
import json
import re
import subprocess
import sys
from importlib import metadata

import pytest

from adabelief_core import _cli
from adabelief_core.parity import _process, quick
from adabelief_core.parity._process import Report, Row, entry_points
from adabelief_core.parity._table import render


def row(**changes):
    fields = {
        "framework": "f 1", "device": "cpu", "mode": "eager", "dtype": "float32", "problems": 2, "steps": 24,
        "elements": 100, "differing": 0, "ulps": 0, "promise": 0, "note": "",
    }  # fmt: skip
    return Row(**{**fields, **changes})


def test_parity_of_numpy_is_bit_identical(capsys):
    assert _cli.main(["parity", "--adapter", "numpy", "--dtype", "float32", "--steps", "3"]) == 0
    out = capsys.readouterr().out
    elements = sum(p.size for p in quick("float32", tensors=_process._QUICK_TENSORS)[0].params().values())
    assert len(re.findall(rf"numpy .* float32 +2 +6 +0 of {elements:,} +0 +bits +ok", out)) == 3
    assert "3 of 3 comparisons bit-identical" in out


def test_the_module_runs():
    command = [
        sys.executable,
        "-m",
        "adabelief_core",
        "parity",
        "--adapter",
        "numpy",
        "--dtype",
        "float64",
        "--steps",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "blocked" in done.stdout
    assert "[1/1] numpy" in done.stderr


@pytest.mark.parametrize(
    ("reports", "status"),
    [
        ([Report("a", [row()])], 0),
        ([Report("a", [row(differing=1, ulps=1)])], 1),
        ([Report("a", [row(differing=1, ulps=3, promise=4)])], 0),
        ([Report("a", [row(differing=1, ulps=5, promise=4)])], 1),
        ([Report("a", missing="not installed (a)")], 0),
        ([Report("a", error="Traceback")], 1),
        ([Report("a", [row()]), Report("b", [row(differing=1, ulps=1)])], 1),
    ],
)
def test_exit_status(monkeypatch, capsys, reports, status):
    monkeypatch.setattr(_cli, "run_all", lambda *_, **__: reports)
    assert _cli.main(["parity"]) == status
    out = capsys.readouterr().out
    for report in reports:
        assert report.missing in out
        assert report.error in out
    assert ("BROKEN" in out) == any(r.broken for report in reports for r in report.rows)


def test_the_table_shows_where_it_differed():
    text = render([Report("a", [row(differing=7, ulps=12, note="step 3, m of 'odd'")])])
    assert "7 of 100" in text
    assert "BROKEN: step 3, m of 'odd'" in text
    assert "0 of 1 comparisons bit-identical" in text


def fake(name, module):
    return metadata.EntryPoint(name, module, "adabelief.adapters")


def test_a_framework_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setattr(_process, "entry_points", lambda: {"x": fake("x", "no_such_framework:adapter")})
    rows = io.StringIO()
    assert _process.run_child({"name": "x", "dtypes": [], "steps": 1, "full": False}, rows) == 3
    assert rows.getvalue() == "not installed (no_such_framework)\n"


def test_an_adapter_that_fails_is_an_error(monkeypatch):
    monkeypatch.setattr(_process, "entry_points", lambda: {"x": fake("x", "adabelief_core.no_such_module:adapter")})
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        _process.run_child({"name": "x", "dtypes": [], "steps": 1, "full": False}, io.StringIO())
    report = _process._run_child("no such adapter", ["float32"], 1, False)
    assert report.failed
    assert "KeyError" in report.error


def test_backends_are_told_by_the_environment(monkeypatch):
    seen = {}

    def run(command, env, **_):
        seen.update(env=env, request=json.loads(command[-1]))
        return subprocess.CompletedProcess(command, 3, "not installed (keras)\n", "")

    monkeypatch.setattr(_process.subprocess, "run", run)
    report = _process._run_child("keras/jax", ["float32"], 5, True)
    assert seen["env"]["KERAS_BACKEND"] == "jax"
    assert seen["request"] == {"name": "keras/jax", "dtypes": ["float32"], "steps": 5, "full": True}
    assert report.summary == "not installed (keras)"
    assert not report.failed


def test_every_adapter_of_the_package_is_declared():
    assert {"numpy", "torch", "optax", "keras/tensorflow", "keras/jax", "keras/torch"} <= entry_points().keys()


@pytest.mark.parametrize(
    "arguments", [["parity", "--steps", "0"], ["parity", "--adapter", "nope"], ["parity", "--dtype", "int8"], []]
)
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        _cli.main(arguments)
    assert stop.value.code == 2
    assert "error" in capsys.readouterr().err
