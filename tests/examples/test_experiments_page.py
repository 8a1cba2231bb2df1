"""docs/experiments.md says what the committed results say: its tables are those that the command prints from them."""

import re
import subprocess
import sys

import pytest
from smoke import PNG, ROOT

from examples.gan.experiment import EXPERIMENT as GAN
from examples.harness import RIVALS
from examples.harness._results import read_csv, table
from examples.image_classification.experiment import EXPERIMENT as IMAGES
from examples.language_modelling.experiment import EXPERIMENT as LANGUAGE

PAGE = (ROOT / "docs" / "experiments.md").read_text()
FOLDER = ROOT / "docs" / "experiments"
EXPERIMENTS = {experiment.name: experiment for experiment in (IMAGES, LANGUAGE, GAN)}
RESULTS = [name + suffix for name in EXPERIMENTS for suffix in ("", "_eps")]
DECAY = {"coupled": "coupled", "decoupled": "decoupled", "settings": "as the experiment says"}


def test_every_experiment_and_sweep_is_there():
    assert sorted(path.stem for path in FOLDER.glob("*.csv")) == sorted(RESULTS)
    assert sorted(path.stem for path in FOLDER.glob("*.png")) == sorted(RESULTS)


@pytest.mark.parametrize("name", RESULTS)
def test_the_table_is_the_one_of_the_csv(name):
    lines = read_csv(FOLDER / f"{name}.csv")
    assert table(lines) in PAGE
    # The comparison can fail: with one result changed it is another table, and not the page's.
    lines[-1].update({lines[-1]["metric"]: "-1", "diverged": "0"})
    assert table(lines) not in PAGE


def test_the_command_prints_the_tables():
    paths = [FOLDER / f"{name}.csv" for name in RESULTS]
    done = subprocess.run(
        [sys.executable, "-m", "examples.harness", *paths], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n\n".join(table(read_csv(path)) for path in paths) + "\n"


@pytest.mark.parametrize("name", RESULTS)
def test_the_figure_is_shown_and_of_the_same_runs(name):
    assert f"](experiments/{name}.png)" in PAGE
    png = (FOLDER / f"{name}.png").read_bytes()
    assert png.startswith(PNG)
    lines = read_csv(FOLDER / f"{name}.csv")
    for commit in {line["commit"] for line in lines}:
        assert re.fullmatch(r"[0-9a-f]{40}", commit), "the results of a tree with changes"
        assert commit.encode() in png
    assert (FOLDER / f"{name}.csv").stat().st_size < 2_000_000


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_everybody_had_the_same_budget(name):
    lines = read_csv(FOLDER / f"{name}.csv")
    for variant in EXPERIMENTS[name].variants:
        for optimizer, rival in RIVALS.items():
            own = [line for line in lines if (line["variant"], line["optimizer"]) == (variant, optimizer)]
            assert {float(line["lr"]) for line in own if line["phase"] == "tuning"} == set(
                EXPERIMENTS[name].grid(rival.grid)
            )
            assert {line["seed"] for line in own if line["phase"] == "final"} == {"1", "2", "3"}
    for variant, settings in EXPERIMENTS[name].settings.items():
        epochs = {int(line["epoch"]) for line in lines if line["variant"] == variant}
        assert max(epochs) == settings.epochs


def test_the_grids_are_stated():
    for rival in RIVALS.values():
        grid = ", ".join(f"{lr:g}" for lr in rival.grid)
        assert f"\n| {rival.label} | {grid} | {DECAY[rival.decay]} |\n" in PAGE, rival.name


def test_the_page_is_in_the_navigation():
    assert "experiments.md" in (ROOT / "mkdocs.yml").read_text()
