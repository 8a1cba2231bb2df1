"""What the tests of the experiments share: run one as a user does, and look at what it wrote."""

import csv
import subprocess
import sys
from pathlib import Path

from examples.harness import RIVALS

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n"


def command(name, out, *arguments):
    """`python -m examples.NAME --out OUT …`; the finished process."""
    line = [sys.executable, "-W", "error", "-m", f"examples.{name}", "--out", str(out), *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)


def rows(path):
    """The lines of a CSV."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def check_smoke(experiment, out):
    """The smoke version trains every optimizer once a variant, and writes all; what it printed."""
    done = command(experiment.name, out, "--smoke")
    assert done.returncode == 0, done.stderr
    folder = out / experiment.name
    lines = rows(folder / f"{experiment.name}.csv")
    pairs = [(variant, optimizer) for variant in experiment.variants for optimizer in RIVALS]
    assert sorted({(line["variant"], line["optimizer"]) for line in lines}) == sorted(pairs)
    for line in lines:
        assert line["phase"] == "final"
        assert line["seed"] == "1"
        assert line["commit"]
        for name in ("train_loss", experiment.tuned_on, experiment.metric):
            assert float(line[name]) == float(line[name]) or line["diverged"] == "1"
    finite = [line for line in lines if line["diverged"] == "0"]
    assert {line["optimizer"] for line in finite} >= {"adabelief", "adam"}
    assert (folder / f"{experiment.name}.png").read_bytes().startswith(PNG)
    assert (folder / f"{experiment.name}.md").read_text().strip() in done.stdout
    assert len(list((folder / "runs").iterdir())) == len(pairs)
    return done.stdout
