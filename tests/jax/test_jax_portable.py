"""A run out of Optax and into it, wherever in the state AdaBelief is."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import Hyperparameters
from adabelief_core.parity import DTYPES, check, covering, quick
from adabelief_core.portable import Entry, Snapshot, layers
from adabelief_jax import adabelief, restore, scale_by_belief, snapshot
from adabelief_jax._parity import adapter

OP_BY_OP = next(mode for mode in adapter.modes() if mode.device == "cpu" and not mode.slow)
SHAPES = {"dense": {"kernel": (3, 2), "bias": (2,)}, "scale": ()}


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_run_through_a_file_after_every_step_has_the_bits_of_one_that_stays(dtype, tmp_path):
    kinds = ("scalar", "empty", "odd", "nonfinite")
    # A compilation for each tensor and set of lines: each pair of options on one, all tensors with few options.
    for problem in covering(dtype, steps=2, tensors=kinds[-1:]) + quick(dtype, steps=8, tensors=kinds):
        result = check(OP_BY_OP, problem, through=tmp_path / "run")
        assert (result.differing, result.first) == (0, ""), problem.name


def tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.standard_normal(shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def steps(optimizer, params, state, seeds):
    for seed in seeds:
        updates, state = optimizer.update(tree(seed), state, params)
        params = optax.apply_updates(params, updates)
    return params, state


def assert_same(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (a.dtype, np.asarray(a).tobytes()) == (b.dtype, np.asarray(b).tobytes())


RULE = {"amsgrad": True, "rectify": True, "kahan_sum": True}
DECAYING = optax.cosine_decay_schedule(0.1, 10)
HOMES = {
    "alone": adabelief(0.1, **RULE),
    "schedule": adabelief(DECAYING, weight_decay=0.1, fixed_decay=True),
    "chain": optax.chain(optax.clip_by_global_norm(1.0), adabelief(DECAYING, **RULE)),
    "named_chain": optax.named_chain(("clip", optax.clip(1.0)), ("belief", adabelief(DECAYING))),
    "masked": optax.masked(adabelief(0.1, **RULE), {"dense": True, "scale": False}),
    "partition": optax.partition({"a": adabelief(0.1, **RULE), "b": adabelief(0.2)}, {"dense": "a", "scale": "b"}),
    "MultiSteps": optax.MultiSteps(adabelief(DECAYING, **RULE), 1),
    "inject": optax.inject_hyperparams(adabelief)(DECAYING, weight_decay=0.1),
    "scale_by_belief": optax.chain(scale_by_belief(), optax.scale_by_learning_rate(DECAYING)),
    "apply_if_finite": optax.apply_if_finite(adabelief(0.1), 3),
    "optax's own": optax.adabelief(DECAYING),
}


@pytest.mark.parametrize("home", HOMES)
def test_a_restored_state_is_the_old_one_and_goes_on(home):
    optimizer = HOMES[home]
    params, state = steps(optimizer, tree(0), optimizer.init(tree(0)), range(1, 8))
    taken = snapshot(state, params)
    expected = ["dense/bias", "dense/kernel"] if home == "masked" else ["dense/bias", "dense/kernel", "scale"]
    assert sorted(taken.entries) == expected
    assert {entry.step for entry in taken.entries.values()} == {7}
    start = jax.tree.map(jnp.zeros_like, tree(0)) if home != "masked" else {**tree(9), "scale": params["scale"]}
    new_state, new_params = restore(optimizer.init(start), start, taken)
    assert_same(new_params, params)
    if home == "inject":  # the hyperparameters of the last step, which the next computes anew
        new_state = new_state._replace(hyperparams=state.hyperparams)
    if home == "MultiSteps":  # of no gradients; 0 and -0 are one
        new_state = new_state._replace(acc_grads=state.acc_grads)
    assert_same(new_state, state)
    assert_same(steps(optimizer, new_params, new_state, [8, 9]), steps(optimizer, params, state, [8, 9]))


def test_between_two_kinds_of_state():
    """Out of a chain in MultiSteps, into AdaBelief alone, by way of other names."""
    source, target = optax.MultiSteps(optax.chain(optax.identity(), adabelief(0.1)), 2), adabelief(0.1)
    params, state = steps(source, tree(0), source.init(tree(0)), [1, 2, 3, 4])
    flat = {"kernel": jnp.zeros((3, 2)), "bias": jnp.zeros(2), "scale": jnp.zeros(())}
    taken = snapshot(state, params, hyperparameters=Hyperparameters(lr=0.1))
    assert taken.hyperparameters.lr == 0.1
    new_state, new_params = restore(target.init(flat), flat, taken, lambda name: name.rpartition("/")[2])
    assert int(new_state[0].count) == 2
    np.testing.assert_array_equal(new_params["kernel"], params["dense"]["kernel"])


def test_restore_under_one_step_that_was_compiled_does_not_compile_again():
    optimizer = adabelief(0.1)
    params, state = steps(optimizer, tree(0), optimizer.init(tree(0)), [1])
    traced = 0

    @jax.jit
    def step(grads, state, params):
        nonlocal traced
        traced += 1
        return optimizer.update(grads, state, params)

    step(tree(1), state, params)
    state, params = restore(state, params, snapshot(state, params))
    step(tree(1), state, params)
    assert traced == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda taken: {}, "none of the snapshot, 'dense/bias', 'dense/kernel', 'scale' of the optimizer"),
        (lambda taken: {**taken, "x": taken["scale"]}, "'x' of the snapshot, none of the optimizer"),
        (lambda taken: {**taken, "scale": Entry(1, *[np.ones(2, "f4")] * 3)}, r"'scale' is float32 of shape \[2\]"),
        (lambda taken: {**taken, "scale": Entry(1, *[np.ones((), "f8")] * 3)}, "'scale' is float64"),
        (
            lambda taken: {**taken, "scale": Entry(5, *[np.ones((), "f4")] * 3)},
            "'dense/bias' is at step 1, 'scale' is at",
        ),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    optimizer = adabelief(0.1)
    params, state = steps(optimizer, tree(0), optimizer.init(tree(0)), [1])
    taken = Snapshot(change(dict(snapshot(state, params).entries)))
    with pytest.raises(ValueError, match=message):
        restore(state, params, taken)


@pytest.mark.parametrize("option", [{"amsgrad": True}, {"kahan_sum": True}])
def test_a_state_that_an_option_needs(option):
    optimizer, other = adabelief(0.1), adabelief(0.1, **option)
    params, state = steps(optimizer, tree(0), optimizer.init(tree(0)), [1])
    with pytest.raises(ValueError, match=f"which {next(iter(option))}=True needs"):
        restore(other.init(params), params, snapshot(state, params))


def test_states_that_are_no_run_of_adabelief():
    params = tree(0)
    with pytest.raises(ValueError, match="it holds no state of AdaBelief"):
        snapshot(optax.adam(0.1).init(params), params)
    with pytest.raises(ValueError, match="two states of AdaBelief hold 'dense/bias'"):
        snapshot(optax.chain(adabelief(0.1), adabelief(0.1)).init(params), params)
    with pytest.raises(ValueError, match="'scale' of the state is not among them"):
        snapshot(adabelief(0.1).init(params), {"dense": params["dense"]})
    optimizer = optax.MultiSteps(adabelief(0.1), 2)
    _, state = steps(optimizer, params, optimizer.init(params), [1])
    with pytest.raises(ValueError, match="MultiSteps has gathered 1 gradients of the next step"):
        snapshot(state, params)


def test_moments_of_another_dtype():
    """Optax's own keeps those of half-precision parameters in half precision."""
    params = {"w": jnp.ones(2, jnp.bfloat16)}
    state = optax.adabelief(0.1).init(params)
    with pytest.raises(ValueError, match=r"'w': Invalid m: bfloat16 of shape \[2\] \(expected float32"):
        snapshot(state, params)
    taken = Snapshot({"w": Entry(1, np.asarray(params["w"]), np.ones(2, "f4"), np.ones(2, "f4"))})
    with pytest.raises(ValueError, match=r"'w', m: float32 \(expected bfloat16, which the state has\)"):
        restore(state, params, taken)


SHARDED = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import NamedSharding, PartitionSpec
from adabelief_jax import adabelief, restore, snapshot

mesh = jax.make_mesh((2, 4), ("data", "model"))
optimizer = adabelief(0.1, amsgrad=True)
x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
host = {"w": jnp.asarray(x)}
shards = jax.device_put(host, NamedSharding(mesh, PartitionSpec("model", "data")))

def stepped(params, state, grads):
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state

params, state = stepped(shards, optimizer.init(shards), shards)
taken = snapshot(state, params)
single, single_state = stepped(host, optimizer.init(host), host)
for key, value in {"p": single, "m": single_state[0].mu, "s": single_state[0].nu, "v": single_state[0].nu_max}.items():
    assert getattr(taken.entries["w"], key).tobytes() == np.asarray(value["w"]).tobytes()
zeros = jax.tree.map(jnp.zeros_like, shards)
state, params = restore(optimizer.init(zeros), zeros, taken)
for x in (params["w"], state[0].mu["w"], state[0].nu["w"], state[0].nu_max["w"]):
    assert x.sharding == shards["w"].sharding, x.sharding
assert np.asarray(params["w"]).tobytes() == np.asarray(single["w"]).tobytes()
"""


def test_shards(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=8")
    done = subprocess.run([sys.executable, "-c", SHARDED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_layers_of_flax():
    """The ready-made rules give the names and layouts that Flax's layers have: all sizes here differ."""

    class Network(nn.Module):
        @nn.compact
        def __call__(self, ids):
            x = nn.Embed(11, 7, name="embedding")(ids)
            x = nn.LayerNorm(name="layer")(nn.Conv(5, (3,), name="conv1d")(x))
            x = nn.GroupNorm(1, name="group")(nn.Conv(4, (3, 2), name="conv2d")(x[..., None]))
            x = nn.Conv(6, (3, 2, 1), name="conv3d")(x[..., None])
            return nn.Dense(9, name="dense")(x)

    params = Network().init(jax.random.key(0), jnp.zeros((1, 8), jnp.int32))["params"]
    in_torch = {
        "0": ("embedding", "embedding", (11, 7)),
        "1": ("conv1d", "conv1d", (5, 7, 3)),
        "2": ("norm", "layer", (5,)),
        "3": ("conv2d", "conv2d", (4, 1, 3, 2)),
        "4": ("norm", "group", (4,)),
        "5": ("conv3d", "conv3d", (6, 1, 3, 2, 1)),
        "6": ("dense", "dense", (9, 6)),
    }
    arrays = {f"{name}.weight": np.ones(shape, "f4") for name, (_, _, shape) in in_torch.items()}
    arrays |= {f"{name}.bias": np.ones(shape[0], "f4") for name, (_, _, shape) in in_torch.items() if name != "0"}
    taken = Snapshot({name: Entry(2, x, x, x) for name, x in arrays.items()})
    table = {name: (kind, there) for name, (kind, there, _) in in_torch.items()}
    optimizer = adabelief(0.1)
    state, moved = restore(optimizer.init(params), params, taken, layers("torch", "flax", table))
    assert int(state[0].count) == 2
    assert jax.tree.map(jnp.shape, moved) == jax.tree.map(jnp.shape, params)
    assert all((x == 1).all() for x in jax.tree.leaves(moved))


def test_a_run_that_two_processes_share(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    both = [
        subprocess.Popen(
            [sys.executable, Path(__file__).parent / "two_processes.py", coordinator, str(index), tmp_path / "run"],
            env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in (0, 1)
    ]
    (out, problem), (_, other) = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], problem + other
    answer = json.loads(out.strip().splitlines()[-1])
    assert answer.pop("same") == [True] * 2 * 9  # on two devices: p, m, s and v of two parameters, and the count
    assert answer == {"shared": True, "kept": True, "shape": [8, 3], "step": 2}
