"""Validation: every error names the argument and the value."""

import dataclasses
import re

import numpy as np
import pytest

from adabelief_core import AdaBelief, Hyperparameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid lr: -1.0 (expected a finite number >= 0)"),
        ({"lr": float("nan")}, "Invalid lr: nan"),
        ({"lr": float("inf")}, "Invalid lr: inf"),
        ({"betas": (1.0, 0.999)}, "Invalid betas[0]: 1.0 (expected a number in [0, 1))"),
        ({"betas": (0.9, -0.1)}, "Invalid betas[1]: -0.1"),
        ({"betas": (0.9, float("nan"))}, "Invalid betas[1]: nan"),
        ({"betas": 0.9}, "Invalid betas: 0.9 (expected a pair of numbers)"),
        ({"betas": (0.9, 0.99, 0.999)}, "Invalid betas: (0.9, 0.99, 0.999)"),
        ({"eps": -1e-8}, "Invalid eps: -1e-08"),
        ({"eps_root": -1e-8}, "Invalid eps_root: -1e-08"),
        ({"eps_root": float("nan")}, "Invalid eps_root: nan"),
        ({"weight_decay": -0.1}, "Invalid weight_decay: -0.1"),
        ({"update_clip": 0.0}, "Invalid update_clip: 0.0 (expected None or a finite number > 0)"),
        ({"update_clip": -1.0}, "Invalid update_clip: -1.0"),
        ({"update_clip": float("nan")}, "Invalid update_clip: nan"),
        ({"update_clip": float("inf")}, "Invalid update_clip: inf"),
        ({"weight_decouple": False, "fixed_decay": True}, "Invalid fixed_decay: True (a fixed decay is a"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [Hyperparameters, lambda **options: AdaBelief({"w": np.ones(1)}, **options)])
def test_out_of_range(make, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": "0.1"}, "Invalid lr: '0.1' (expected a number)"),
        ({"lr": True}, "Invalid lr: True (expected a number)"),
        ({"betas": (0.9, None)}, "Invalid betas[1]: None"),
        ({"eps": 1j}, "Invalid eps: 1j"),
        ({"rectify": 1}, "Invalid rectify: 1 (expected a bool)"),
        ({"amsgrad": "yes"}, "Invalid amsgrad: 'yes'"),
        ({"maximize": None}, "Invalid maximize: None"),
        ({"nesterov": 0}, "Invalid nesterov: 0"),
        ({"weight_decouple": 1}, "Invalid weight_decouple: 1"),
        ({"fixed_decay": 1}, "Invalid fixed_decay: 1"),
        ({"degenerated_to_sgd": 1}, "Invalid degenerated_to_sgd: 1"),
        ({"update_clip": "1"}, "Invalid update_clip: '1' (expected a number)"),
        ({"update_clip": True}, "Invalid update_clip: True"),
        ({"weigth_decay": 0.1}, "unexpected keyword argument 'weigth_decay'"),
    ],
)
@pytest.mark.parametrize("make", [Hyperparameters, lambda **options: AdaBelief({"w": np.ones(1)}, **options)])
def test_wrong_type_or_name(make, options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        make(**options)


def test_the_caller_s_spelling():
    spelling = {"lr": "learning_rate", "betas[1]": "beta_2", "fixed_decay": "fix"}
    with pytest.raises(ValueError, match=r"Invalid learning_rate: -1 "):
        Hyperparameters(lr=-1, spelling=spelling)
    with pytest.raises(ValueError, match=r"Invalid beta_2: 2 "):
        Hyperparameters(betas=(0.9, 2), spelling=spelling)
    with pytest.raises(ValueError, match=r"Invalid fix: True"):
        Hyperparameters(fixed_decay=True, weight_decouple=False, spelling=spelling)


def test_the_optimizer_has_no_spelling():
    with pytest.raises(TypeError, match="unexpected keyword argument 'spelling'"):
        AdaBelief({"w": np.ones(1)}, spelling={})


def test_frozen_and_replaceable():
    h = Hyperparameters(betas=[0.8, 0.9])  # a list is a pair too, but what is stored can be hashed
    assert h.betas == (0.8, 0.9)
    assert hash(dataclasses.replace(h, eps=1e-8))
    with pytest.raises(dataclasses.FrozenInstanceError):
        h.lr = 1.0
    with pytest.raises(ValueError, match="Invalid eps: -1"):
        dataclasses.replace(h, eps=-1)


@pytest.mark.parametrize("number", [np.float32(0.25), np.float64(0.25), np.int64(0), 0])
def test_numpy_numbers_are_numbers(number):
    assert Hyperparameters(lr=number, eps=number, weight_decay=number, betas=(number, number)).lr == number


@pytest.mark.parametrize(
    ("options", "decay"),
    [
        ({}, "none"),
        ({"weight_decay": 0.1}, "decoupled"),
        ({"weight_decay": 0.1, "weight_decouple": False}, "coupled"),
        ({"weight_decay": 0.1, "fixed_decay": True}, "fixed"),
        ({"weight_decouple": False}, "none"),
    ],
)
def test_the_kind_of_decay(options, decay):
    assert Hyperparameters(**options).variant.decay == decay
