"""Bad input gets an error that names the argument and the value, before anything changes."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

from adabelief_tf import AdaBelief


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": -1.0}, r"Invalid learning_rate: -1.0 \(expected a finite number >= 0\)"),
        ({"learning_rate": float("nan")}, "Invalid learning_rate: nan"),
        ({"learning_rate": 1}, "`learning_rate` should be float"),
        ({"beta_1": 1.0}, r"Invalid beta_1: 1.0 \(expected a number in \[0, 1\)\)"),
        ({"beta_2": -0.1}, "Invalid beta_2: -0.1"),
        ({"epsilon": -1e-8}, "Invalid epsilon: -1e-08"),
        ({"epsilon_root": float("inf")}, "Invalid epsilon_root: inf"),
        ({"weight_decay": -0.1}, "Invalid weight_decay: -0.1"),
        ({"update_clip": 0.0}, r"Invalid update_clip: 0.0 \(expected None or a finite number > 0\)"),
        ({"update_clip": float("inf")}, "Invalid update_clip: inf"),
        ({"fixed_decay": True, "weight_decouple": False}, "Invalid fixed_decay: True"),
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "Only one of `clipnorm`"),
        ({"gradient_accumulation_steps": 1}, "`gradient_accumulation_steps` must be"),
        ({"use_ema": True, "ema_momentum": 2.0}, "`ema_momentum` must be"),
        ({"print_change_log": False}, r"not recognized: \{'print_change_log'"),
    ],
)
def test_values(options, message):
    with pytest.raises(ValueError, match=message):
        AdaBelief(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"beta_1": "0.9"},
        {"epsilon": None},
        {"weight_decay": True},
        {"update_clip": "1"},
        *({name: 1} for name in ("amsgrad", "rectify", "kahan_sum")),
    ],
)
def test_types(options):
    (name,) = options
    with pytest.raises(TypeError, match=f"Invalid {name}: "):
        AdaBelief(**options)


def test_options_are_keywords():
    with pytest.raises(TypeError, match="positional"):
        AdaBelief(0.1, 0.9, 0.999, 1e-16, None, 1e-16)


@pytest.fixture
def pair():
    variables = [
        keras.Variable(np.ones(3, np.float32), name="a"),
        keras.Variable(np.ones((2, 3), np.float32), name="b"),
    ]
    optimizer = AdaBelief(0.1)
    optimizer.build(variables)
    return optimizer, variables


def refuses(optimizer, variables, grads, message):
    before = [v.numpy() for v in [*variables, *optimizer.variables]]
    with pytest.raises(ValueError, match=message):
        optimizer.apply(grads, variables)
    for x, v in zip(before, [*variables, *optimizer.variables], strict=True):
        np.testing.assert_array_equal(x, v.numpy())


def test_gradients_of_another_shape(pair):
    message = r"Invalid gradient of 'b': shape \(3,\) \(expected \(2, 3\), as the variable\)"
    refuses(*pair, [ops.ones(3), ops.ones(3)], message)


def test_update_step_broadcasts_no_gradient(pair):
    optimizer, (variable, _) = pair
    with pytest.raises(ValueError, match=r"Invalid gradient of 'a': shape \(1,\) \(expected \(3,\)"):
        optimizer.update_step(ops.ones(1), variable, 0.1)
    np.testing.assert_array_equal(variable.numpy(), np.ones(3))


def test_another_number_of_gradients(pair):
    refuses(*pair, [ops.ones(3)], "Invalid grads: 1 gradients for 2 variables")


def test_another_number_of_gradients_without_variables(pair):
    with pytest.raises(ValueError, match="list of 1 gradients"):
        pair[0].apply([ops.ones(3)])


def test_complex_gradients(pair):
    refuses(*pair, [np.ones(3, np.complex64), ops.ones((2, 3))], "Invalid gradient of 'a': dtype complex64")


@pytest.mark.parametrize("option", ["amsgrad", "kahan_sum"])
def test_an_option_that_comes_after_its_state(pair, option):
    setattr(pair[0], option, True)
    message = rf"Invalid {option}: True \(the optimizer was built without it\)"
    refuses(*pair, [ops.ones(3), ops.ones((2, 3))], message)


def test_unknown_variables(pair):
    stranger = keras.Variable(np.ones(3, np.float32))
    refuses(pair[0], [stranger], [ops.ones(3)], "Unknown variable")


def test_integer_variables():
    variables = [
        keras.Variable(np.ones(2, np.float32)),
        keras.Variable(np.ones(2, np.int32), name="steps", trainable=False),
    ]
    optimizer = AdaBelief()
    with pytest.raises(TypeError, match=r"Invalid variable 'steps': dtype int32 \(expected float16"):
        optimizer.build(variables)
    assert not optimizer.built
    assert len(optimizer.variables) == 2


def _python(code, **environment):
    import os

    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_no_other_adapter_is_imported():
    others = {"adabelief_torch", "adabelief_jax", "optax"}
    # Keras imports other frameworks by itself; this package adds none to them.
    code = (
        f"import sys, keras; of_keras = set(sys.modules); import adabelief_tf, adabelief_tf._parity; "
        f"new = set(sys.modules) - of_keras; print(sorted(({others!r} & set(sys.modules)) | "
        f"(new & {{'tensorflow', 'jax', 'torch', 'numba', 'ml_dtypes'}})))"
    )
    result = _python(code)
    assert result.stdout.strip() == "[]", result.stderr


def test_other_backends_are_refused():
    result = _python("import adabelief_tf", KERAS_BACKEND="numpy")
    assert "ImportError: adabelief_tf needs Keras on its tensorflow, jax or torch backend, not 'numpy'" in result.stderr
