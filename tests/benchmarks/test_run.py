"""The table of the benchmarks: what becomes of several processes' reports."""

import csv
import sys

import pytest
import run


def test_medians_are_of_the_processes(tmp_path, monkeypatch):
    """Three processes: the median of the ratios is not the ratio of the medians."""
    times = [(1.0, 2.0), (4.0, 3.0), (5.0, 5.0)]
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import json, pathlib
log = pathlib.Path(__file__).with_suffix(".log")
turn = len(log.read_text()) if log.exists() else 0
log.write_text("." * (turn + 1))
a, b = {times}[turn]
print("not a report")
print(json.dumps({{"case": "step", "ours": "a", "times": {{"a": a, "b": b}}, "notes": {{"b": "old"}}}}))
"""
    )
    monkeypatch.setattr(run, "SCRIPTS", [([str(script)], {})])
    monkeypatch.setattr(run, "draw", lambda cases, path: None)
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "out"), "--runs", "3"])
    run.main()
    with (tmp_path / "out" / "results.csv").open(newline="") as file:
        assert list(csv.reader(file))[1:] == [["step", "a", "4.00", "1.00", ""], ["step", "b", "3.00", "1.00", "old"]]


def test_reports_of_other_cases_are_not_mixed(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        """
import pathlib
log = pathlib.Path(__file__).with_suffix(".log")
print('{"case": "step", "ours": "a", "times": {"a": 1}, "notes": {}}' if log.exists() else "")
log.write_text(".")
"""
    )
    monkeypatch.setattr(run, "SCRIPTS", [([str(script)], {})])
    monkeypatch.setattr(sys, "argv", ["run.py", "--out", str(tmp_path / "out"), "--runs", "2"])
    with pytest.raises(ValueError, match="longer"):
        run.main()


def test_no_run_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--runs", "0"])
    with pytest.raises(SystemExit):
        run.main()
    assert "argument --runs: 0 (expected at least 1)" in capsys.readouterr().err
