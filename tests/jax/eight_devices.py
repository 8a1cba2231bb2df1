"""Sharded over a mesh of data and model; `test_jax_sharding.py` runs these on eight host devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from adabelief_core.parity import compare
from adabelief_jax import adabelief, scale_by_belief

SHAPES = {"w": (16, 32), "rows": (8, 3), "b": (32,), "scale": ()}
SPECS = {"w": PartitionSpec("data", "model"), "rows": PartitionSpec("data"), "b": PartitionSpec("model")}
OPTIONS = {
    "weight_decay": 0.1,
    "rectify": True,
    "amsgrad": True,
    "nesterov": True,
    "kahan_sum": True,
    "update_clip": 0.5,
}
DTYPES = {"b": jnp.bfloat16}


def normals(seed):
    rng = np.random.default_rng(seed)
    return {name: jnp.asarray(rng.standard_normal(x), DTYPES.get(name, jnp.float32)) for name, x in SHAPES.items()}


@pytest.fixture(params=[AxisType.Auto, AxisType.Explicit], ids=str)
def shardings(request):
    assert jax.device_count() == 8
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(request.param,) * 2)
    with jax.set_mesh(mesh):
        yield {name: NamedSharding(mesh, SPECS.get(name, PartitionSpec())) for name in SHAPES}


def moments(state):
    belief = state[0] if isinstance(state[0], tuple) else state
    return [tree for tree in (belief.mu, belief.nu, belief.nu_max, belief.kahan_comp) if tree is not None]


def assert_sharded_as(tree, shardings):
    for name, x in tree.items():
        assert x.sharding.is_equivalent_to(shardings[name], x.ndim), (name, x.sharding)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("make", [lambda: adabelief(0.01, **OPTIONS), scale_by_belief])
def test_init_shards_the_moments_as_the_parameters(make, compiled, shardings):
    params = jax.device_put(normals(0), shardings)
    init = jax.jit(make().init) if compiled else make().init
    for tree in moments(init(params)):
        assert_sharded_as(tree, shardings)


def test_abstract_parameters(shardings):
    """A program compiled ahead, from shapes and shardings alone."""
    abstract = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), normals(0), shardings
    )
    opt = adabelief(0.01, **OPTIONS)
    compiled = jax.jit(opt.init).lower(abstract).compile()
    for tree in moments(compiled.output_shardings):
        assert all(x.is_equivalent_to(shardings[name], len(SHAPES[name])) for name, x in tree.items())
    for tree in moments(jax.eval_shape(opt.init, abstract)):
        assert jax.tree.map(jnp.shape, tree) == SHAPES
        if shardings["w"].mesh.axis_types[0] is AxisType.Explicit:
            assert {name: x.sharding.spec for name, x in tree.items() if name in SPECS} == {
                name: jax.typeof(jax.device_put(normals(0)[name], shardings[name])).sharding.spec for name in SPECS
            }


def run(params, put):
    opt = adabelief(optax.cosine_decay_schedule(0.01, 20), **OPTIONS)

    @jax.jit
    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.jit(opt.init)(params)
    for seed in range(1, 9):
        params, state = step(params, state, put(normals(seed)))
    return params, state


def test_a_sharded_run_has_the_bits_of_one_that_is_not(shardings):
    alone, alone_state = run(normals(0), lambda tree: tree)
    params, state = run(jax.device_put(normals(0), shardings), lambda tree: jax.device_put(tree, shardings))
    assert_sharded_as(params, shardings)
    for ours, theirs in zip([params, *moments(state)], [alone, *moments(alone_state)], strict=True):
        assert_sharded_as(ours, shardings)
        for name in SHAPES:
            assert compare(np.asarray(ours[name]), np.asarray(theirs[name])).count == 0, name
    assert int(state[0].count) == int(state[1].count) == 8


def test_inside_shard_map(shardings):
    """What each device does to its own part is what all of them do together."""
    params, grads = (jax.device_put(normals(seed), shardings) for seed in (0, 1))
    specs = {name: sharding.spec for name, sharding in shardings.items()}
    opt = adabelief(0.01, weight_decay=0.1)

    def first(params, grads):
        updates, _ = opt.update(grads, opt.init(params), params)
        return updates

    parts = jax.jit(jax.shard_map(first, in_specs=(specs, specs), out_specs=specs))(params, grads)
    whole = jax.jit(first)(params, grads)
    for name in SHAPES:
        assert compare(np.asarray(parts[name]), np.asarray(whole[name])).ulps <= 1, name
