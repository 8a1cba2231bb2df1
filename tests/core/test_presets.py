"""The authors' table of settings: whole, as the documentation has it, and read-only."""

import doctest
from pathlib import Path

import numpy as np
import pytest

from adabelief_core import AdaBelief, Hyperparameters, presets, spelt

PRESETS = {name: getattr(presets, name) for name in presets.__all__}
PAGE = Path(__file__).parents[2] / "docs" / "presets.md"
# Of the README of the authors' repository, in its order and its columns: lr, beta1, beta2, epsilon, weight_decay,
# weight_decouple (None: "True=False"), rectify.
TABLE = {
    "CIFAR": (1e-3, 0.9, 0.999, 1e-8, 5e-4, False, False),
    "IMAGENET": (1e-3, 0.9, 0.999, 1e-8, 1e-2, True, False),
    "OBJECT_DETECTION": (1e-4, 0.9, 0.999, 1e-8, 1e-4, False, False),
    "LSTM_1": (1e-3, 0.9, 0.999, 1e-16, 1.2e-6, False, False),
    "LSTM_2_3": (1e-2, 0.9, 0.999, 1e-12, 1.2e-6, False, False),
    "GAN": (2e-4, 0.5, 0.999, 1e-12, 0.0, None, False),
    "SN_GAN": (2e-4, 0.5, 0.999, 1e-16, 0.0, None, True),
    "TRANSFORMER": (5e-4, 0.9, 0.999, 1e-16, 1e-4, True, True),
    "REINFORCEMENT_RAINBOW": (1e-4, 0.9, 0.999, 1e-10, 0.0, None, True),
    "REINFORCEMENT_HALFCHEETAH": (1e-3, 0.9, 0.999, 1e-16, 0.0, None, True),
}


def test_every_row_of_the_authors_table_is_a_preset_and_no_other():
    assert sorted(presets.__all__) == sorted(TABLE)
    for name, (lr, beta1, beta2, eps, decay, decoupled, rectify) in TABLE.items():
        preset = PRESETS[name]
        assert (preset["lr"], preset["betas"], preset["eps"]) == (lr, (beta1, beta2), eps), name
        assert (preset["weight_decay"], preset["rectify"]) == (decay, rectify), name
        assert decoupled is None or preset["weight_decouple"] is decoupled, name
        assert (preset["fixed_decay"], preset["amsgrad"]) == (False, False), name
        assert decoupled is not None or decay == 0, name


def printed():
    """The table as the page has it."""
    lines = [
        "| preset | lr | β1 | β2 | ε | weight decay | decay is | rectify |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in TABLE:
        h = Hyperparameters(**PRESETS[name])
        decay = {"none": "-"}.get(h.variant.decay, h.variant.decay)
        cells = (h.lr, *h.betas, h.eps, h.weight_decay, decay, "yes" if h.rectify else "no")
        lines.append(f"| `{name}` | {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def test_the_page_has_the_table():
    assert f"\n{printed()}\n" in PAGE.read_text()


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_makes_an_optimizer(name):
    params = {"w": np.ones(3)}
    AdaBelief(params, **PRESETS[name]).step({"w": np.array([0.5, -2.0, 1.0])})
    assert (params["w"] != 1).all()


@pytest.mark.parametrize("name", PRESETS)
def test_eps_is_added_in_both_places_also_where_it_is_another(name):
    h = Hyperparameters(**{**PRESETS[name], "eps": 1e-5})
    assert (h.eps, h.eps_root) == (1e-5, None)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_is_read_only(name):
    with pytest.raises(TypeError, match="does not support item assignment"):
        PRESETS[name]["lr"] = 1.0
    assert {**PRESETS[name], "lr": 1.0}["lr"] == 1.0


def test_other_names():
    spelling = {"lr": "rate", "betas[0]": "b1", "betas[1]": "b2"}
    named = spelt(presets.GAN, spelling)
    assert (named["rate"], named["b1"], named["b2"], named["eps"]) == (2e-4, 0.5, 0.999, 1e-12)
    assert not {"lr", "betas"} & named.keys()


def test_examples():
    result = doctest.testmod(presets)
    assert result.attempted
    assert not result.failed
