"""The authors' settings in Optax's names: the core's steps."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adabelief_core
from adabelief_jax import adabelief, presets


@pytest.mark.parametrize("name", adabelief_core.presets.__all__)
def test_a_preset_takes_the_cores_steps(name):
    params = {"w": np.float32([1.0, -2.0, 0.5])}
    core = adabelief_core.AdaBelief(params, **getattr(adabelief_core.presets, name))
    optimizer = adabelief(**getattr(presets, name))
    p = jnp.array(params["w"])
    state = optimizer.init(p)
    for g in np.float32([[0.5, -2.0, 3.0], [1.5, 0.25, -1.0]]):
        updates, state = optimizer.update(g, state, p)
        p = optax.apply_updates(p, updates)
        core.step({"w": g})
        np.testing.assert_array_equal(p, params["w"])


def test_eps_is_added_in_both_places_also_where_it_is_another():
    p = jnp.zeros(1)
    optimizer = adabelief(**{**presets.GAN, "eps": 0.5})
    _, state = optimizer.update(p, optimizer.init(p), p)
    np.testing.assert_array_equal(state[0].nu, [0.5])


def test_they_are_read_only():
    with pytest.raises(TypeError, match="does not support item assignment"):
        presets.GAN["learning_rate"] = 1.0
