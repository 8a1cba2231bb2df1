"""What Optax asks of every optimizer of its own, and the bits of a chain of its parts."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adabelief_core import AdaBelief
from adabelief_core.parity import compare
from adabelief_jax import adabelief, scale_by_belief

EVERYTHING = {"weight_decay": 1e-4, "rectify": True, "amsgrad": True, "nesterov": True}


def normals(seed, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(257).astype(dtype)


def chain(lr, weight_decay, mask=None, **options):
    return optax.chain(
        scale_by_belief(**options),
        optax.add_decayed_weights(weight_decay, mask),
        optax.scale_by_learning_rate(lr),
    )


def stepper(opt):
    def step(params, state, grads):
        updates, state = opt.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


# Convergence


def parabola(x):
    return jnp.sum(jnp.abs(x - jnp.array([1.0, -1.0, 1.0])) ** 2)


def rosenbrock(x):
    return jnp.abs(1.0 - x[0]) ** 2 + 100.0 * jnp.abs(x[1] - x[0] ** 2) ** 2


@pytest.mark.parametrize(
    ("loss", "start", "end"),
    [(parabola, [-1.0, 10.0, 1.0], [1.0, -1.0, 1.0]), (rosenbrock, [0.0, 0.0], [1.0, 1.0])],
    ids=["parabola", "rosenbrock"],
)
@pytest.mark.parametrize("dtype", [np.float32, np.complex64, np.float64, np.complex128])
@pytest.mark.parametrize(
    "opt",
    [adabelief(0.01), adabelief(0.01, rectify=True, nesterov=True, kahan_sum=True), chain(0.01, 0.0, amsgrad=True)],
    ids=["plain", "options", "chain"],
)
def test_convergence(opt, loss, start, end, dtype):
    def body(carry, _):
        # JAX's gradient of a real function of a complex number is the conjugate of the one to descend.
        return stepper(opt)(*carry, jax.grad(loss)(carry[0]).conj()), None

    with jax.enable_x64(np.finfo(dtype).bits == 64):
        (params, state), _ = jax.jit(lambda p: jax.lax.scan(body, (p, opt.init(p)), length=10_000))(
            jnp.asarray(start, dtype)
        )
    assert params.dtype == dtype
    assert state[0].count == 10_000
    np.testing.assert_allclose(params, end, rtol=3e-2, atol=3e-2)


# Types


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32, jnp.complex64])
@pytest.mark.parametrize("mu_dtype", [None, "float32"])
def test_both_sides_of_a_cond(dtype, mu_dtype):
    """Only where updates and state keep their dtypes does `lax.cond` take the two sides."""
    params = {"w": jnp.ones(3, dtype), "b": jnp.ones((), dtype)}
    opt = adabelief(optax.constant_schedule(0.01), mu_dtype=mu_dtype, **EVERYTHING)

    @jax.jit
    def step(go, params, state):
        skip = jax.tree.map(jnp.zeros_like, params)
        updates, state = jax.lax.cond(go, lambda: opt.update(params, state, params), lambda: (skip, state))
        return optax.apply_updates(params, updates), state

    state = opt.init(params)
    for go in (True, False, True):
        before = params
        params, state = step(go, params, state)
        assert np.array_equal(params["w"], before["w"]) is not go
    assert step._cache_size() == 1
    assert int(state[0].count) == 2


def test_trees_of_float32_and_float64():
    """Each leaf has the bits it has in the core, which works on each in its own dtype."""
    dtypes = {"narrow": np.float32, "wide": np.float64}
    with jax.enable_x64(True):
        exact = {name: normals(0, dtype) for name, dtype in dtypes.items()}
        params = {name: jnp.asarray(x) for name, x in exact.items()}
        reference, opt = AdaBelief(exact, 0.01, **EVERYTHING), adabelief(0.01, **EVERYTHING)
        state, step = opt.init(params), jax.jit(stepper(opt))
        for seed in range(1, 9):
            grads = {name: normals(seed, dtype) for name, dtype in dtypes.items()}
            reference.step(grads)
            params, state = step(params, state, grads)
        for name, ours in reference.state.items():
            for mine, theirs in zip((params, *state[0][1:4]), (exact[name], ours.m, ours.s, ours.v), strict=True):
                assert compare(np.asarray(mine[name]), theirs).count == 0
        assert step._cache_size() == 1


def test_extra_arguments_in_a_chain():
    opt = optax.chain(adabelief(0.1), optax.contrib.reduce_on_plateau())
    params = jnp.array([3.0, -1.0, 0.0])
    slope = jax.grad(parabola)(params)
    updates, state = opt.update(slope, opt.init(params), params, value=jnp.float32(7.0), unknown="passes by")
    assert float(state[1].avg_value) == 0.0
    assert int(state[1].count) == 0
    assert float(state[1].best_value) == 7.0
    alone = adabelief(0.1)
    assert np.array_equal(updates, alone.update(slope, alone.init(params), params)[0])


# Bits of a chain


def against_core(lr, weight_decay, compiled, dtype=np.float32, steps=20):
    """(Core, chain) after steps: pairs of parameters, first and second moments. float64 needs x64."""
    options = {"rectify": True, "amsgrad": True}
    exact, opt = {"w": normals(0, dtype)}, chain(lr, weight_decay, **options)
    reference = AdaBelief(exact, lr, weight_decay=weight_decay, **options)
    params, step = jnp.asarray(exact["w"]), stepper(opt)
    state = opt.init(params)
    step = jax.jit(step) if compiled else step
    for seed in range(1, steps + 1):
        reference.step({"w": normals(seed, dtype)})
        params, state = step(params, state, normals(seed, dtype))
    kept = reference.state["w"]
    ours = (params, *state[0][1:4])
    return list(zip((exact["w"], kept.m, kept.s, kept.v), map(np.asarray, ours), strict=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_chain_op_by_op_has_the_cores_bits(dtype):
    with jax.enable_x64(dtype == np.float64):
        assert [compare(*pair).count for pair in against_core(1e-3, 0.1, False, dtype)] == [0] * 4


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_compiled_chain_with_exact_products_has_the_cores_bits(dtype):
    with jax.enable_x64(dtype == np.float64):
        pairs = against_core(2.0**-7, 2.0**-4, True, dtype)
    assert {x.dtype for pair in pairs for x in pair} == {np.dtype(dtype)}
    assert [compare(*pair).count for pair in pairs] == [0] * 4


def test_a_compiled_chain_contracts_what_is_optaxs():
    """λp and lr·u, products of Optax's, feed sums: each step may round once where the core rounds twice."""
    (exact, ours), *moments = against_core(1e-3, 0.1, compiled=True)
    assert [compare(*pair).count for pair in moments] == [0] * 3
    ulp = np.spacing(np.abs(exact) + np.float32(20 * 1e-3))
    assert (np.abs(exact - ours) <= 20 * ulp).all()


def test_a_compiled_chain_where_nothing_can_be_contracted():
    """Without the processor's FMA, a chain of Optax's parts has the core's bits, whatever the numbers."""
    code = (
        "from test_jax_conformance import against_core, compare\n"
        "print([compare(*pair).count for pair in against_core(1e-3, 0.1, compiled=True)])"
    )
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_max_isa=AVX"
    path = os.pathsep.join(filter(None, (os.path.dirname(__file__), os.environ.get("PYTHONPATH"))))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "[0, 0, 0, 0]\n", result.stderr


# Traced betas


@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("b2", [0.999, 0.99999])
def test_a_run_with_injected_betas(b2, rectify):
    """The moments have the core's bits. k and c may each be off by one ulp (`test_traced_betas`), and Δ by four."""
    numbers = {"learning_rate": 0.01, "b1": 0.9, "b2": b2, "eps": 1e-8, "eps_root": 1e-12}
    numbers = {name: float(np.float32(x)) for name, x in numbers.items()}
    opt = optax.inject_hyperparams(adabelief)(**numbers, rectify=rectify)
    params = jnp.zeros(257)
    exact = {"w": np.zeros(257, np.float32)}
    lr, *betas, eps, eps_root = numbers.values()
    reference = AdaBelief(exact, lr, betas=tuple(betas), eps=eps, eps_root=eps_root, rectify=rectify)
    state, update = opt.init(params), jax.jit(opt.update)
    for seed in range(1, 101):
        exact["w"][:] = 0  # so that the new parameter is Δ
        reference.step({"w": normals(seed)})
        updates, state = update(normals(seed), state, params)
        belief = state.inner_state[0]
        assert compare(np.asarray(belief.mu), reference.state["w"].m).count == 0
        assert compare(np.asarray(belief.nu), reference.state["w"].s).count == 0
        assert compare(np.asarray(updates), exact["w"]).ulps <= 4
