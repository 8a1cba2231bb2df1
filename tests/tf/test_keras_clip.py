"""`update_clip`: where g - m goes to 0 no step is longer than lr·k·update_clip, in each mode of a backend."""

import keras
import numpy as np
import pytest
from keras import ops
from keras_helpers import G, core, run, values

from adabelief_core.parity import Problem
from adabelief_tf import AdaBelief, AdaBeliefOptimizer, restore, snapshot
from adabelief_tf._parity import adapter

MODES = {mode.name: mode for mode in adapter.modes()}
BETAS = {"constant": (0.9, 0.99), "clipped by element": (0.9, 0.99), "no momentum": (0.0, 0.99)}
OTHERS = {"clipped by element": {"clipvalue": 1.0}}


def longest(case, count=600, **options):
    """The longest element of the last steps, with a learning rate of 1, in the quickest mode of the backend."""
    name = "eager" if keras.backend.backend() == "torch" else "jit"
    problem = Problem("", "float32", {"betas": BETAS[case], "eps": 0.0, **options}, lr=1.0, tensors=("odd",))
    run = MODES[name].start(problem)
    for attribute, value in OTHERS.get(case, {}).items():
        setattr(run._optimizer, attribute, value)
    rng, found = np.random.default_rng(0), 0.0
    before = run.state().p["odd"]
    for t in range(count):
        noise = rng.standard_normal((7, 13))
        g = {"constant": np.full((7, 13), 3.0), "clipped by element": 3 + 0.4 * noise, "no momentum": noise}[case]
        run.step({"odd": g.astype(np.float32)})
        after = run.state().p["odd"]
        if t >= count - 50:
            found = max(found, np.abs(after - before).max())
        before = after
    return found


@pytest.mark.parametrize("case", BETAS)
def test_without_it_the_step_grows_and_with_it_it_does_not(case):
    assert longest(case, eps_root=1e-20) > 10
    # Differences of parameters, which the steps have moved far by then.
    assert longest(case, eps_root=1e-20, update_clip=2.0) == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", MODES)
def test_nan_stays_nan_and_infinity_becomes_the_bound(name, dtype):
    problem = Problem("", dtype, {"rectify": True, "update_clip": 0.5}, lr=1.0, tensors=("odd",))
    run = MODES[name].start(problem)
    before = run.state().p["odd"].astype(np.float64)
    g = np.zeros((7, 13), before.dtype)
    g[0, :4] = np.nan, np.inf, -np.inf, 1.0
    run.step({"odd": g.astype(problem.params()["odd"].dtype)})
    moved = (run.state().p["odd"].astype(np.float64) - before)[0]
    assert np.isnan(moved[0])
    np.testing.assert_allclose(moved[1:5], [-5.0, 5.0, -1.0, 0.0], atol=0.05)


@pytest.mark.parametrize("name", MODES)
def test_a_bound_that_nothing_reaches_changes_no_bit(name):
    options = {"weight_decay": 0.1, "amsgrad": True}
    free, far = (
        MODES[name].start(Problem("", "float32", given, tensors=("odd", "nonfinite")))
        for given in (options, {**options, "update_clip": 1e38})
    )
    for grads in Problem("", "float32", options, tensors=("odd", "nonfinite")).grads():
        free.step(grads)
        far.step(grads)
    for key, x in free.state().p.items():
        np.testing.assert_array_equal(far.state().p[key], x)


def test_it_is_settable():
    optimizer, variable = run(G[:1])
    optimizer.update_clip = -1.0
    before = values(variable)
    with pytest.raises(ValueError, match=r"Invalid update_clip: -1\.0"):
        optimizer.apply([ops.convert_to_tensor(G[1])], [variable])
    np.testing.assert_array_equal(values(variable), before)
    optimizer.update_clip = 0.01
    optimizer.apply([ops.convert_to_tensor(G[1])], [variable])
    np.testing.assert_allclose(np.abs(values(variable) - before), 0.125 * 0.01 / 0.19, rtol=1e-3)


def test_a_config_keeps_it_also_of_the_drop_in():
    for make in (AdaBelief, AdaBeliefOptimizer):
        assert make.from_config(make(update_clip=0.5).get_config()).update_clip == 0.5
        assert make.from_config(make().get_config()).update_clip is None


def test_a_snapshot_keeps_it():
    w = keras.Variable(np.ones(2, "float32"))
    taken = snapshot(AdaBelief(update_clip=0.5), {"w": w})
    assert taken.hyperparameters.update_clip == 0.5
    with pytest.raises(ValueError, match=r"Invalid update_clip: None \(expected 0\.5, with which"):
        restore(AdaBelief(), {"w": w}, taken)


def test_torch_tensors_off_the_cpu(only, monkeypatch):
    """The path for other devices, on a CPU: the bound is rounded once, in the variable's dtype."""
    only("torch")
    from adabelief_tf import _backend_torch

    monkeypatch.setattr(_backend_torch, "_on_cpu", lambda variables: False)
    variable = keras.Variable(np.float64([1.0, 2.0, 3.0]), dtype="float64")
    optimizer = AdaBelief(0.125, update_clip=1 / 30)
    for g in G:
        optimizer.apply([ops.convert_to_tensor(g, "float64")], [variable])
    expected = core(G, dtype=np.float64, update_clip=1 / 30)
    np.testing.assert_allclose(ops.convert_to_numpy(variable.value), expected, rtol=1e-15)
