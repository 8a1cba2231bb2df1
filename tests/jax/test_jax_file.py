"""Folders of Orbax: read as a run, and written from one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from adabelief_core import Hyperparameters
from adabelief_core.portable import Entry, Snapshot
from adabelief_core.portable._convert import Settings
from adabelief_jax import adabelief, snapshot
from adabelief_jax._file import read, write

PARAMS = {"dense": {"kernel": jnp.arange(6.0).reshape(3, 2), "bias": jnp.ones(2)}, "scale": jnp.ones(())}


def trained(optimizer, params=PARAMS, count=3):
    state = optimizer.init(params)
    for _ in range(count):
        updates, state = optimizer.update(params, state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def saved(path, tree):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, tree)


def assert_same(ours, theirs):
    assert ours.entries.keys() == theirs.entries.keys()
    for name, one in ours.entries.items():
        other = theirs.entries[name]
        assert one.step == other.step
        for key in "pmsvk":
            a, b = getattr(one, key), getattr(other, key)
            assert (a is None) == (b is None)
            assert a is None or (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


@pytest.mark.parametrize(
    "optimizer",
    [
        adabelief(0.1),
        adabelief(0.1, amsgrad=True, kahan_sum=True),
        optax.chain(optax.clip(1.0), adabelief(optax.constant_schedule(0.1))),
        optax.MultiSteps(adabelief(0.1), 2),
    ],
)
def test_it_reads_what_orbax_saved(optimizer, tmp_path):
    params, state = trained(optimizer, count=4)
    saved(tmp_path / "run", {"step": 4, "state": [{"opt": state}], "model": {"inner": params}})
    assert_same(read(tmp_path / "run", Settings()), snapshot(state, params))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, jnp.bfloat16])
def test_a_run_written_is_the_run_read(dtype, tmp_path):
    h = Hyperparameters(lr=0.25, amsgrad=True, weight_decay=0.1)
    with jax.enable_x64(dtype == np.float64):
        params, state = trained(
            adabelief(0.25, amsgrad=True, weight_decay=0.1), jax.tree.map(lambda x: x.astype(dtype), PARAMS)
        )
        taken = snapshot(state, params, hyperparameters=h)
    write(taken, tmp_path / "run", Settings())
    settings = Settings({"lr": 0.25, "amsgrad": True, "weight_decay": 0.1})
    back = settings.completed(read(tmp_path / "run", settings))
    assert_same(back, taken)
    assert back.hyperparameters == h
    with ocp.StandardCheckpointer() as checkpointer, jax.enable_x64(dtype == np.float64):
        tree = checkpointer.restore(tmp_path / "run", {"params": params, "opt_state": state})
    assert jax.tree.structure(tree["opt_state"]) == jax.tree.structure(state)


def test_what_is_no_run(tmp_path):
    params, state = trained(adabelief(0.1))
    for number, (tree, message) in enumerate(
        [
            ({"params": params}, "expected one state of AdaBelief, found none"),
            ({"a": state, "b": state, "params": params}, "expected one state of AdaBelief, found 'a/0', 'b/0'"),
            ({"state": state}, "expected one tree of the parameters that the state has, found none"),
            ({"state": state, "p": params, "ema": params}, "found 'ema', 'p'"),
        ]
    ):
        saved(tmp_path / str(number), tree)
        with pytest.raises(ValueError, match=f"Invalid folder '.*{number}': .*{message}"):
            read(tmp_path / str(number), Settings())
    with pytest.raises(FileNotFoundError, match=r"No folder of Orbax: '.*none'"):
        read(tmp_path / "none", Settings())
    (tmp_path / "empty").mkdir()
    with pytest.raises((ValueError, OSError)):
        read(tmp_path / "empty", Settings())


def test_runs_that_optax_has_no_optimizer_for(tmp_path):
    one = np.ones(2, np.float32)
    h = Hyperparameters(lr=0.1)
    for entries, message in (
        ({"a": Entry(1, one, one, one)}, "no hyperparameters that all parameters share"),
        ({"a": Entry(1, one, one, one, h=h), "b": Entry(2, one, one, one, h=h)}, "'a' is at step 1, 'b' is at step 2"),
        ({"a": Entry(1, one, one, one, h=Hyperparameters(lr=0.1, maximize=True))}, "Invalid maximize: True"),
    ):
        with pytest.raises(ValueError, match=message):
            write(Snapshot(entries), tmp_path / "run", Settings())
        assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with pytest.raises(FileExistsError):
        write(Snapshot({"a": Entry(1, one, one, one, h=h)}), tmp_path / "run", Settings())
