"""The harness, with an experiment that takes no time: runs, choice, resumption, interruption, table and figure."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from smoke import PNG, ROOT, rows

from examples.harness import RIVALS, DataError, Experiment, Settings, _runs, main
from examples.harness._plan import EPS, Plan
from examples.harness._results import groups, read_csv, table
from examples.harness._runs import Run, Store, diverged

SETTINGS = Settings(epochs=3, batch_size=4, weight_decay=0.1, milestones=(2,))


def train(variant, optimizer, seed, settings, data, dataset):
    """Find the least of a bowl with noise; in the variant "steep" learning rates above 0.1 diverge."""
    if data is not None and not (data / "there").exists():
        raise DataError(f"Invalid --data: {data} (expected a file named there)")
    if "log" in settings.extra:
        with open(settings.extra["log"], "a") as file:
            file.write("trained\n")
    x = torch.nn.Parameter(torch.randn(2))
    steps = optimizer([x])
    steepness = 30 if variant == "steep" else 1
    for _ in range(settings.epochs):
        for _ in range(20):
            steps.zero_grad()
            loss = steepness * (x + 0.01 * torch.randn(2)).square().sum()
            loss.backward()
            steps.step()
        loss = x.square().sum().item()
        bad = not loss < 1e6
        yield {"train_loss": loss, "validation": math.nan if bad else loss, "test": math.nan if bad else 2 * loss}
        if bad:
            return


EXPERIMENT = Experiment(
    name="bowl",
    title="A bowl",
    variants=("flat", "steep"),
    metric="test",
    better="lower",
    tuned_on="validation",
    settings={"flat": SETTINGS, "steep": SETTINGS},
    train=train,
    datasets=("noise", "local"),
    paper={"local": {"flat": replace(SETTINGS, epochs=5)}},
)
FEW = ("--optimizers", "adabelief,sgd", "--seeds", "2")


def counted(tmp_path):
    """The experiment, and how often it has been trained."""
    log = tmp_path / "log"
    settings = replace(SETTINGS, extra={"log": str(log)})
    experiment = replace(EXPERIMENT, settings=dict.fromkeys(EXPERIMENT.variants, settings))
    return experiment, lambda: len(log.read_text().splitlines()) if log.exists() else 0


def run(experiment, out, *arguments):
    assert main(experiment, ["--out", str(out), *arguments]) == 0
    return read_csv(out / "bowl" / f"bowl{'_eps' if '--eps' in arguments else ''}.csv")


def test_everything_that_is_asked_for_is_in_the_csv(tmp_path):
    lines = run(EXPERIMENT, tmp_path, *FEW)
    for variant in EXPERIMENT.variants:
        for name in ("adabelief", "sgd"):
            own = [line for line in lines if (line["variant"], line["optimizer"]) == (variant, name)]
            tuning = {float(line["lr"]) for line in own if line["phase"] == "tuning"}
            assert tuning == set(RIVALS[name].grid)
            assert {line["seed"] for line in own if line["phase"] == "tuning"} == {"0"}
            assert [(line["seed"], line["epoch"]) for line in own if line["phase"] == "final"] == [
                (seed, epoch) for seed in "12" for epoch in "123"
            ]
    for line in lines:
        assert json.loads(line["settings"])["weight_decay"] == 0.1
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", line["commit"])
        assert line["torch"] == torch.__version__
    assert (tmp_path / "bowl" / "bowl.png").read_bytes().startswith(PNG)
    assert lines[0]["commit"].encode() in (tmp_path / "bowl" / "bowl.png").read_bytes()


def test_the_best_on_validation_data_is_chosen_and_never_a_diverged_one(tmp_path):
    lines = run(EXPERIMENT, tmp_path, *FEW)
    for variant in EXPERIMENT.variants:
        own = [line for line in lines if (line["variant"], line["optimizer"]) == (variant, "sgd")]
        ends = {line["lr"]: float(line["validation"]) for line in own if line["phase"] == "tuning"}
        finite = {lr: value for lr, value in ends.items() if math.isfinite(value)}
        assert {line["lr"] for line in own if line["phase"] == "final"} == {min(finite, key=finite.get)}
        assert (len(finite) < len(ends)) == (variant == "steep")
    bad = [line for line in lines if line["diverged"] == "1"]
    assert {line["phase"] for line in bad} == {"tuning"}


def test_of_equals_the_usual_rate_is_chosen(tmp_path):
    plan = Plan(EXPERIMENT, {"flat": SETTINGS}, ("adam",), 1, False, "noise", None)
    store = Store(tmp_path, EXPERIMENT)
    assert plan.chosen(store, "flat", "adam") == 1e-3  # not tuned
    for each in plan.tuning("flat", "adam"):
        store.write(each, [{"train_loss": 1.0, "validation": 1.0 + (each.lr == 1e-3), "test": 0.0}])
    assert plan.chosen(store, "flat", "adam") in (3e-4, 3e-3)
    for each in plan.tuning("flat", "adam"):
        store.write(each, [{"train_loss": math.nan, "validation": math.nan, "test": math.nan}])
    assert plan.chosen(store, "flat", "adam") == 1e-3


def test_the_grids_of_an_experiment_are_multiplied(tmp_path):
    experiment = replace(EXPERIMENT, rates=10.0)
    assert experiment.grid(RIVALS["adam"].grid) == (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
    plan = Plan(experiment, {"flat": SETTINGS}, ("adam",), 1, False, "noise", None)
    assert [each.lr for each in plan.tuning("flat", "adam")] == [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    assert plan.chosen(Store(tmp_path, experiment), "flat", "adam") == 1e-2


def test_a_run_depends_on_its_seed_and_settings_only(tmp_path):
    alone = Run("flat", "adabelief", 1e-2, 1, SETTINGS, "noise").train(EXPERIMENT)
    torch.rand(7)
    assert Run("flat", "adabelief", 1e-2, 1, SETTINGS, "noise").train(EXPERIMENT) == alone
    assert Run("flat", "adabelief", 1e-2, 2, SETTINGS, "noise").train(EXPERIMENT) != alone
    one, two = run(EXPERIMENT, tmp_path / "one", *FEW), run(EXPERIMENT, tmp_path / "two", *FEW, "--jobs", "2")
    assert one == two
    assert (tmp_path / "one/bowl/bowl.csv").read_bytes() == (tmp_path / "two/bowl/bowl.csv").read_bytes()


def test_a_second_call_trains_nothing(tmp_path, capsys):
    experiment, times = counted(tmp_path)
    first = run(experiment, tmp_path, *FEW)
    text = capsys.readouterr().out
    assert times() == 2 * 2 * (5 + 2)
    assert run(experiment, tmp_path, *FEW) == first
    assert times() == 28
    assert capsys.readouterr().out == text
    run(experiment, tmp_path, "--optimizers", "adabelief,sgd", "--seeds", "3")
    assert times() == 28 + 4


def test_a_half_run_is_done_again(tmp_path):
    experiment, times = counted(tmp_path)
    first = run(experiment, tmp_path, *FEW)
    path = min((tmp_path / "bowl" / "runs").iterdir())
    # What a process leaves that dies while it writes.
    path.rename(path.with_suffix(".1.part"))
    path.with_suffix(".1.part").write_text(path.with_suffix(".1.part").read_text()[:40])
    assert run(experiment, tmp_path, *FEW) == first
    assert times() == 28 + 1
    assert path.exists()


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 4},
        {"batch_size": 5},
        {"weight_decay": 0.2},
        {"decoupled": True},
        {"betas": (0.8, 0.999)},
        {"milestones": (1,)},
        {"overrides": {"sgd": {"nesterov": True}}},
        {"extra": {"a": 1}},
    ],
    ids=str,
)
def test_a_changed_setting_is_another_run(tmp_path, change):
    store = Store(tmp_path, EXPERIMENT)
    before = Run("flat", "sgd", 0.1, 1, SETTINGS, "noise")
    store.write(before, before.train(EXPERIMENT))
    assert store.read(before)
    assert store.read(replace(before, settings=replace(SETTINGS, **change))) is None


def test_whatever_else_determines_a_run_is_another_run(tmp_path, monkeypatch):
    store = Store(tmp_path, EXPERIMENT)
    run = Run("flat", "sgd", 0.1, 1, SETTINGS, "noise")
    changes = {"variant": "steep", "optimizer": "adam", "lr": 0.2, "seed": 2, "dataset": "local", "data": "/x"}
    changes["eps"] = 1e-8
    others = [replace(run, **{name: value}) for name, value in changes.items()]
    paths = {store.path(each) for each in [run, *others]}
    assert len(paths) == 1 + len(changes)
    monkeypatch.setattr(_runs, "versions", lambda: {"torch": "another"})
    assert store.path(run) not in paths
    monkeypatch.undo()
    monkeypatch.setattr(_runs, "sources", lambda experiment: "edited")
    assert Store(tmp_path, EXPERIMENT).path(run) not in paths


def test_runs_that_diverge_are_shown_and_come_last(tmp_path, capsys):
    settings = replace(SETTINGS, overrides={"adam": {"lr": 1e9}})
    experiment = replace(EXPERIMENT, settings={"flat": settings}, variants=("flat",))
    lines = run(experiment, tmp_path, "--optimizers", "adam,adabelief", "--seeds", "2")
    assert [group.optimizer for group in groups(lines, "final")] == ["adabelief", "adam"]
    row = next(line for line in capsys.readouterr().out.splitlines() if "| Adam |" in line)
    assert row == "| flat | 2 | Adam | 0.001 | diverged |  | 2 | 2 |"
    assert diverged([{"test": 1.0}, {"test": math.inf}])
    assert diverged([])
    assert not diverged([{"test": math.nan}, {"test": 1.0}])


def line(optimizer, seed, value, lr="0.1", phase="final", diverged="0"):
    return {
        "phase": phase,
        "variant": "v",
        "optimizer": optimizer,
        "lr": lr,
        "eps": "",
        "seed": str(seed),
        "epoch": "1",
        "test": str(value),
        "metric": "test",
        "better": "lower",
        "diverged": diverged,
    }


def test_the_table_says_who_won():
    lines = [line("adabelief", 1, 3.0), line("adabelief", 2, 5.0), line("sgd", 1, 1.0), line("sgd", 2, 2.0)]
    lines += [
        line("adam", 1, 4.0),
        line("adam", 2, 4.00001),
        line("yogi", 1, 0.0),
        line("yogi", 2, "nan", diverged="1"),
    ]
    lines += [line("sgd", 0, 1.0, lr, "tuning") for lr in ("0.1", "0.3")]
    text = table(lines)
    found = [[cell.strip() for cell in row.split("|")[2:5]] for row in text.splitlines() if row.startswith("| v |")]
    assert found == [
        ["1", "SGD, momentum", "0.1 (edge of its grid)"],
        ["2", "AdaBelief", "0.1"],
        ["2", "Adam", "0.1"],
        ["4", "Yogi", "0.1"],
    ]
    assert "AdaBelief is 2 of 4, with 1 others as good (mean 4; the best other: SGD, momentum, 1.5); " in text
    assert text.endswith("the two ranges do not overlap.")
    assert "| 4 | 3 … 5 | 2 |  |" in text
    higher = [{**each, "better": "higher"} for each in lines[:4]]
    assert "| v | 1 | AdaBelief |" in table(higher)
    assert "AdaBelief was not compared" in table(lines[2:4])


def test_the_sweep_of_eps(tmp_path, capsys):
    lines = run(EXPERIMENT, tmp_path, "--eps", "--variants", "flat", "--seeds", "2")
    assert {line["lr"] for line in lines} == {"0.001"}  # AdaBelief's usual one: it has not been tuned
    assert sorted({float(line["eps"]) for line in lines}) == list(EPS)
    assert EPS == (1e-16, 1e-14, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4)
    assert len(lines) == 7 * 2 * 3
    text = capsys.readouterr().out
    assert "| eps | flat, lr 0.001 |" in text
    assert "| 1e-16 | " in text
    assert (tmp_path / "bowl" / "bowl_eps.png").read_bytes().startswith(PNG)
    run(EXPERIMENT, tmp_path, "--variants", "flat", "--optimizers", "adabelief", "--seeds", "2")
    assert {line["lr"] for line in run(EXPERIMENT, tmp_path, "--eps", "--variants", "flat")} == {"0.01"}
    ends = {line["eps"]: line["test"] for line in lines if (line["seed"], line["epoch"]) == ("1", "3")}
    assert ends["0.0001"] != ends["1e-16"]


def test_every_rival_gets_what_the_settings_say():
    settings = Settings(1, 1, 0.25, True, (0.5, 0.75), overrides={"yogi": {"weight_decay": 0.5}})
    for name, rival in RIVALS.items():
        made = rival.make([torch.nn.Parameter(torch.ones(2, 2))], 0.125, settings)
        assert made.defaults["lr"] == 0.125
        assert made.defaults["weight_decay"] == (0.5 if name == "yogi" else 0.25)
        if name == "sgd":
            assert made.defaults["momentum"] == 0.5
        elif name != "adafactor":
            assert made.defaults["betas"][:2] == (0.5, 0.75)
        assert len(rival.grid) == 5
        assert list(rival.grid) == sorted(rival.grid)
    assert RIVALS["adabelief"].make([torch.nn.Parameter(torch.ones(1))], 0.1, settings).defaults["weight_decouple"]


@pytest.mark.parametrize("name", RIVALS)
def test_the_stated_way_of_weight_decay(name):
    """Where the gradient is 0, ten steps of a decoupled decay are (1 - lr·λ)^10; a coupled one is itself a gradient."""
    rival = RIVALS[name]
    ends = []
    for decay in (0.0, 0.1):
        p = torch.nn.Parameter(torch.full((2, 2), 2.0))
        steps = rival.make([p], 1e-3, Settings(1, 1, weight_decay=decay))
        for _ in range(10):
            p.grad = torch.zeros_like(p)
            steps.step()
        ends.append(p.detach())
    # What an optimizer does without a decay (Yogi's moments begin above 0) is not the decay's.
    lost = 1 - (2 - (ends[0] - ends[1])) / 2
    decoupled = torch.allclose(lost, torch.full_like(lost, 1 - (1 - 1e-4) ** 10), rtol=1e-2)
    assert decoupled == (rival.decay == "decoupled")


def test_bad_options(tmp_path, capsys):
    for arguments, message in [
        (["--optimizers", "adam,sdg"], "unknown: 'sdg' (expected some of adabelief, sgd"),
        (["--variants", "round"], "unknown: 'round' (expected some of flat, steep)"),
        (["--seeds", "0"], "invalid: '0' (expected an integer >= 1)"),
        (["--jobs", "two"], "invalid: 'two' (expected an integer >= 1)"),
        (["--dataset", "local"], "--data FOLDER goes with --dataset local"),
        (["--data", "x"], "--data FOLDER goes with --dataset local"),
        (["--paper"], "the paper has no settings for --dataset noise (it has for: local)"),
        (["--paper", "--dataset", "local", "--data", "x", "--variants", "steep"], "the paper has no steep on local"),
    ]:
        with pytest.raises(SystemExit) as end:
            main(EXPERIMENT, ["--out", str(tmp_path), *arguments])
        assert end.value.code == 2
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_bad_data_is_an_error_without_a_traceback(tmp_path, capsys, jobs):
    arguments = ["--dataset", "local", "--data", str(tmp_path), "--out", str(tmp_path), "--jobs", jobs]
    assert main(EXPERIMENT, arguments) == 2
    assert capsys.readouterr().err.endswith(f"error: Invalid --data: {tmp_path} (expected a file named there)\n")
    (tmp_path / "there").touch()
    assert main(EXPERIMENT, [*arguments, "--paper", "--smoke", "--optimizers", "sgd"]) == 0
    (found,) = rows(tmp_path / "bowl" / "bowl.csv")
    assert (found["dataset"], found["variant"]) == ("local", "flat")


SCRIPT = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
from test_harness import EXPERIMENT, replace
from examples.harness import main
from test_harness_slow import train
if __name__ == "__main__":
    sys.exit(main(replace(EXPERIMENT, train=train), sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_ctrl_c_keeps_finished_runs(tmp_path, jobs):
    (tmp_path / "test_harness_slow.py").write_text(
        "import time, test_harness\n"
        "def train(variant, *rest):\n"
        "    if variant == 'steep':\n"
        "        print('asleep', flush=True)\n"
        "        time.sleep(600)\n"
        "    yield from test_harness.train(variant, *rest)\n"
    )
    (tmp_path / "script.py").write_text(SCRIPT)
    folders = os.pathsep.join(map(str, (ROOT, Path(__file__).parent, tmp_path)))
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", "--out", tmp_path, "--optimizers", "sgd", "--jobs", jobs],
        env={**os.environ, "PYTHONPATH": folders},
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # A second variant's run only begins in all workers when those of the first are finished.
    for _ in range(int(jobs)):
        assert process.stdout.readline() == "asleep\n"
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.endswith("Interrupted. Finished runs are kept; the same command goes on.\n")
    assert "Traceback" not in err
    assert len(list((tmp_path / "bowl" / "runs").glob("*.json"))) == 5
    assert not (tmp_path / "bowl" / "bowl.csv").exists()


def test_the_commit(tmp_path, monkeypatch):
    def git(*arguments):
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    monkeypatch.setattr(_runs, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    commit = _runs.commit.__wrapped__
    assert commit() == "unknown"
    git("init", "-q")
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "results").mkdir()
    assert commit() == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("2")
    assert commit() == git("rev-parse", "HEAD") + "-dirty"


def test_settings_are_json():
    assert json.loads(json.dumps(asdict(SETTINGS)))["milestones"] == [2]


def test_the_command_that_prints_tables(tmp_path):
    lines = run(EXPERIMENT, tmp_path, "--smoke", "--optimizers", "sgd,adam")
    command = [sys.executable, "-m", "examples.harness", tmp_path / "bowl" / "bowl.csv"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == table(lines) + "\n" == (tmp_path / "bowl" / "bowl.md").read_text()
