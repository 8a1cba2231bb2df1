"""One of two processes that share a run: `python two_processes.py COORDINATOR INDEX FILE`.

They take two steps, write the run, and go on from it, each on its own devices. Process 0 writes, as JSON, whether its
part of what follows has the bits of the run that went on.
"""

import json
import sys

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from adabelief_core.portable import Snapshot
from adabelief_jax import adabelief, restore, snapshot

PLACES = {"w": PartitionSpec("data"), "b": PartitionSpec()}


def everywhere(mesh, seed):
    rng = np.random.default_rng(seed)
    values = {"w": rng.standard_normal((8, 3), np.float32), "b": rng.standard_normal(3, np.float32)}
    return {
        name: jax.make_array_from_callback(x.shape, NamedSharding(mesh, PLACES[name]), lambda part, x=x: x[part])
        for name, x in values.items()
    }


def parts(run):
    return [np.asarray(part.data) for x in jax.tree.leaves(run) for part in x.addressable_shards]


def main(file):
    mesh = jax.make_mesh((4,), ("data",))
    optimizer = adabelief(0.1, amsgrad=True)

    @jax.jit
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    params = everywhere(mesh, 0)
    state = jax.jit(optimizer.init)(params)
    for seed in (1, 2):
        params, state = step(params, state, everywhere(mesh, seed))
    taken = snapshot(state, params)
    if jax.process_index() == 0:
        taken.save(file)
        assert Snapshot.load(file).entries["w"].m.tobytes() == taken.entries["w"].m.tobytes()

    other = everywhere(mesh, 9)
    state_again, again = restore(jax.jit(optimizer.init)(other), other, taken)
    stayed, moved = (step(p, s, everywhere(mesh, 3)) for p, s in ((params, state), (again, state_again)))
    return {
        "shared": not params["w"].is_fully_addressable,
        "same": [a.tobytes() == b.tobytes() for a, b in zip(parts(stayed), parts(moved), strict=True)],
        "kept": again["w"].sharding == other["w"].sharding,
        "shape": list(taken.entries["w"].p.shape),
        "step": taken.entries["b"].step,
    }


if __name__ == "__main__":
    coordinator, index, file = sys.argv[1:]
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, 2, int(index))
    answer = main(file)
    if index == "0":
        json.dump(answer, sys.stdout)
    jax.distributed.shutdown()
