"""The NumPy optimizer as its user meets it."""

import re
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adabelief_core import AdaBelief, Job, compute_dtype, update_inplace
from adabelief_core._inplace import _Work
from adabelief_core.parity import compare

KERNELS = ["readable", "numpy", "numba"]
RNG = np.random.default_rng(0)


def same(a, b):
    assert compare(a, b).count == 0


def stream(params, steps, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        yield {name: rng.standard_normal(p.shape).astype(p.dtype) for name, p in params.items()}


def run(params, steps=10, **options):
    optimizer = AdaBelief(params, **options)
    for grads in stream(params, steps):
        optimizer.step(grads)
    return optimizer


@pytest.mark.parametrize("kernel", KERNELS)
def test_works_in_place_and_leaves_gradients_alone(kernel):
    w = RNG.standard_normal(5)
    params = {"w": w}
    optimizer = AdaBelief(params, kernel=kernel, weight_decay=0.1, weight_decouple=False, maximize=True)
    grads = {"w": np.arange(5.0)}
    before = w.copy()
    optimizer.step(grads)
    assert params["w"] is w
    assert (w != before).any()
    same(grads["w"], np.arange(5.0))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [np.float64, np.float16])
def test_a_gradient_may_be_the_parameter(kernel, dtype):
    """Minimising |w|²/2 with the parameter itself as the gradient."""
    w, other = np.array([1.0, -2.0], dtype), np.array([1.0, -2.0], dtype)
    AdaBelief({"w": w}, kernel=kernel).step({"w": w})
    AdaBelief({"w": other}, kernel=kernel).step({"w": other.copy()})
    same(w, other)


def test_overrides_are_per_name():
    params = {"w": np.ones(3), "b": np.ones(3), "c": np.ones(3)}
    run(params, lr=1e-2, weight_decay=0.1, overrides={"b": {"weight_decay": 0.0, "amsgrad": True}, "c": {"lr": 0.0}})
    alone = {"b": np.ones(3)}
    optimizer = AdaBelief(alone, lr=1e-2, amsgrad=True)
    for grads in stream(params, 10):
        optimizer.step({"b": grads["b"]})
    same(params["b"], alone["b"])
    same(params["c"], np.ones(3))


def test_learning_rate_is_settable_and_may_be_a_function_of_the_step():
    scheduled, by_hand = {"w": np.ones(3)}, {"w": np.ones(3)}
    seen = []

    def schedule(step):
        seen.append(step)
        return 0.1 / (1 + step)

    a, b = AdaBelief(scheduled, lr=schedule), AdaBelief(by_hand)
    for step, grads in enumerate(stream(by_hand, 4)):
        a.step(grads)
        b.lr = 0.1 / (1 + step)
        b.step(grads)
    same(scheduled["w"], by_hand["w"])
    assert seen == [0, 1, 2, 3]
    assert b.lr == 0.1 / 4


def test_an_overridden_learning_rate_may_be_a_function():
    params = {"w": np.ones(3), "b": np.ones(3)}
    run(params, overrides={"b": {"lr": lambda step: 0.0}})
    same(params["b"], np.ones(3))
    assert (params["w"] != 1).all()


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16, np.float16, np.complex128])
def test_state_goes_out_and_in(dtype, amsgrad):
    start = {"w": RNG.standard_normal((4, 3)).astype(dtype)}
    whole = {"w": start["w"].copy()}
    run(whole, 10, amsgrad=amsgrad)

    first = {"w": start["w"].copy()}
    optimizer = AdaBelief(first, amsgrad=amsgrad)
    gradients = list(stream(first, 10))
    for grads in gradients[:4]:
        optimizer.step(grads)
    saved = optimizer.state_dict()
    resumed = {"w": first["w"].copy()}
    for grads in gradients[4:]:  # what was saved is a copy: going on does not change it
        optimizer.step(grads)
    other = AdaBelief(resumed, amsgrad=amsgrad)
    other.load_state_dict(saved)
    for grads in gradients[4:]:
        other.step(grads)
    same(resumed["w"], whole["w"])
    same(first["w"], whole["w"])
    assert saved["w"]["step"] == 4
    assert saved["w"]["m"].dtype == optimizer.state["w"].m.dtype
    assert ("v" in saved["w"]) is amsgrad


@pytest.mark.parametrize(
    ("dtype", "moments"),
    [
        (np.float16, np.float32),
        (ml_dtypes.bfloat16, np.float32),
        (np.float32, np.float32),
        (np.float64, np.float64),
        (np.complex64, np.complex64),
        (np.complex128, np.complex128),
    ],
)
def test_moments_have_the_compute_dtype(dtype, moments):
    state = AdaBelief({"w": np.zeros(2, dtype)}, amsgrad=True).state["w"]
    assert state.m.dtype == state.s.dtype == state.v.dtype == moments


@pytest.mark.parametrize("kernel", KERNELS)
def test_complex_numbers_are_pairs_of_reals(kernel):
    pairs = RNG.standard_normal((6, 2))
    numbers = {"w": np.ascontiguousarray(pairs).view(np.complex128)[:, 0]}
    reals = {"w": pairs.copy()}
    a, b = AdaBelief(numbers, kernel=kernel, amsgrad=True), AdaBelief(reals, kernel=kernel, amsgrad=True)
    for grads in stream(reals, 5):
        b.step(grads)
        a.step({"w": grads["w"].copy().view(np.complex128)[:, 0]})
    same(np.stack([numbers["w"].real, numbers["w"].imag], -1), reals["w"])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"rectify": True, "nesterov": True}], ids=str)
def test_a_bad_element_touches_itself_alone(kernel, bad, options):
    clean, dirty = {"w": np.ones(50, np.float32)}, {"w": np.ones(50, np.float32)}
    a, b = AdaBelief(clean, kernel=kernel, **options), AdaBelief(dirty, kernel=kernel, **options)
    for step, grads in enumerate(stream(clean, 8)):
        a.step(grads)
        if step == 3:
            grads["w"][17] = bad
        b.step(grads)
    rest = np.arange(50) != 17
    same(clean["w"][rest], dirty["w"][rest])
    for x, y in zip(a.state_dict()["w"].values(), b.state_dict()["w"].values(), strict=True):
        if isinstance(x, np.ndarray):
            same(x[rest], y[rest])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_threads_and_layouts_do_not_change_the_bits(kernel, dtype):
    """1.2 million elements in several arrays and layouts: cut in the middle of arrays, copied through buffers."""
    start = {
        "rows": RNG.standard_normal((600, 1001)),
        "columns": np.asfortranarray(RNG.standard_normal((500, 700))),
        "wide": RNG.standard_normal((700, 800))[:, ::2],
        "backwards": RNG.standard_normal(1234)[::-1],
    }
    results = []
    for threads in (1, 2, 3):
        params = {}
        for name, x in start.items():
            params[name] = np.empty_like(x, dtype) if name != "wide" else np.empty((700, 800), dtype)[:, ::2]
            params[name][...] = x
        run(params, 3, kernel=kernel, threads=threads, weight_decay=0.1)
        results.append(params)
    plain = {name: np.ascontiguousarray(x).astype(dtype) for name, x in start.items()}
    run(plain, 3, kernel="readable", threads=1, weight_decay=0.1)
    for params in results:
        for name, x in plain.items():
            same(np.ascontiguousarray(params[name]), x)


@pytest.mark.parametrize("kernel", ["numpy", "numba"])
def test_no_temporaries_of_the_parameters_size(kernel):
    params = {"w": np.ones(4_000_000, np.float32)}
    grads = {"w": np.full(4_000_000, 0.1, np.float32)}
    optimizer = AdaBelief(params, kernel=kernel, weight_decay=0.1)
    optimizer.step(grads)
    tracemalloc.start()
    optimizer.step(grads)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < params["w"].nbytes / 10


@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5)), st.data())
def test_any_shape_and_any_numbers(start, data):
    grads = [data.draw(hnp.arrays(np.float32, start.shape)) for _ in range(3)]
    results = []
    for kernel in KERNELS:
        params = {"w": start.copy()}
        optimizer = AdaBelief(params, kernel=kernel)
        for grad in grads:
            optimizer.step({"w": grad})
        results.append((params["w"], optimizer.state["w"]))
    for w, state in results[1:]:
        same(w, results[0][0])
        same(state.m, results[0][1].m)
        same(state.s, results[0][1].s)


def test_nothing_to_do():
    optimizer = AdaBelief({})
    optimizer.step({})
    assert optimizer.state_dict() == {}
    update_inplace([])


# Bad input, refused before anything changes


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ({"a": np.ones(3)}, "Invalid grads: missing 'b'"),
        ({"a": np.ones(3), "b": np.ones(2), "c": np.ones(1)}, "Invalid grads: unknown 'c'"),
        ({"a": np.ones(3), "b": np.ones(3)}, "Invalid grads['b']: float64 array of shape (3,) (expected float64"),
        ({"a": np.ones(3), "b": np.ones(2, np.float32)}, "Invalid grads['b']: float32 array of shape (2,)"),
        ({"a": np.ones(3), "b": None}, "Invalid grads['b']: None"),
        ({"a": np.ones(3), "b": [1.0, 1.0]}, "Invalid grads['b']: [1.0, 1.0]"),
    ],
)  # fmt: skip
def test_bad_gradients(grads, message):
    params = {"a": np.ones(3), "b": np.ones(2)}
    optimizer = AdaBelief(params)
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.step(grads)
    same(params["a"], np.ones(3))
    assert optimizer.state["a"].step == 0
    same(optimizer.state["a"].m, np.zeros(3))


@pytest.mark.parametrize(
    ("rate", "error", "message"),
    [
        (-1.0, ValueError, "Invalid lr(0): -1.0"),
        (float("nan"), ValueError, "Invalid lr(0): nan"),
        (None, TypeError, "Invalid lr(0): None"),
    ],
)
def test_a_schedule_with_a_bad_value(rate, error, message):
    params = {"w": np.ones(3)}
    optimizer = AdaBelief(params, lr=lambda step: rate)
    with pytest.raises(error, match=re.escape(message)):
        optimizer.step({"w": np.ones(3)})
    same(params["w"], np.ones(3))


def test_a_bad_learning_rate_is_not_set():
    optimizer = AdaBelief({"w": np.ones(3)}, lr=0.5)
    with pytest.raises(ValueError, match="Invalid lr: -1"):
        optimizer.lr = -1
    assert optimizer.lr == 0.5


@pytest.mark.parametrize(
    ("param", "error", "message"),
    [
        (np.ones(3, int), TypeError, "Invalid params['w']: Invalid dtype: <i8"),
        (np.ones(3, bool), TypeError, "Invalid params['w']: Invalid dtype: |b1"),
        (np.ones(3, ">f4"), TypeError, "Invalid params['w']: Invalid dtype: >f4"),
        (np.ones(3, np.longdouble), TypeError, "Invalid params['w']: Invalid dtype"),
        ([1.0], TypeError, "Invalid params['w']: [1.0] (expected a numpy.ndarray)"),
        (np.broadcast_to(np.ones(3), (3, 3)), ValueError, "Invalid params['w']: a read-only array"),
        (
            np.lib.stride_tricks.as_strided(np.ones(3), (2, 3), (0, 8)),
            ValueError,
            "Invalid params['w']: several elements",
        ),
    ],
)
def test_bad_parameters(param, error, message):
    with pytest.raises(error, match=re.escape(message)):
        AdaBelief({"w": param})


def test_one_array_under_two_names():
    w = np.ones(3)
    with pytest.raises(ValueError, match=re.escape("Invalid params['b']: the memory of params['a']")):
        AdaBelief({"a": w, "b": w[:2]})
    AdaBelief({"a": w[:0], "b": w[:0]})


def test_compute_dtype_names_the_dtype():
    with pytest.raises(TypeError, match="Invalid dtype: <i4"):
        compute_dtype(np.dtype("int32"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("b"), "Invalid state_dict: missing 'b'"),
        (lambda s: s.update(c=s["a"]), "Invalid state_dict: unknown 'c'"),
        (lambda s: s["b"].pop("s"), "Invalid state_dict['b']: missing 's'"),
        (lambda s: s["b"].update(v=np.zeros(2)), "Invalid state_dict['b']: unknown 'v'"),
        (lambda s: s["b"].update(m=np.zeros(3)), "Invalid state_dict['b']['m']: float64 array of shape (3,)"),
        (lambda s: s["b"].update(s=np.zeros(2, np.float32)), "Invalid state_dict['b']['s']: float32 array"),
        (lambda s: s["b"].update(step=-1), "Invalid state_dict['b']['step']: -1"),
        (lambda s: s["b"].update(step=1.5), "Invalid state_dict['b']['step']: 1.5"),
    ],
)
def test_bad_state(change, message):
    params = {"a": np.ones(3), "b": np.ones(2)}
    optimizer = run(params, 2)
    kept = optimizer.state_dict()
    state = run({"a": np.ones(3), "b": np.ones(2)}, 5).state_dict()
    change(state)
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.load_state_dict(state)
    for name, values in optimizer.state_dict().items():
        assert values["step"] == kept[name]["step"]
        same(values["m"], kept[name]["m"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overrides": {"x": {"lr": 1.0}}}, "Invalid overrides: unknown 'x'"),
        ({"overrides": {"w": {"eps": -1.0}}}, "Invalid eps: -1.0"),
        ({"kernel": "cuda"}, "Invalid kernel: 'cuda'"),
        ({"threads": 0}, "Invalid threads: 0"),
        ({"threads": 1.5}, "Invalid threads: 1.5"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        AdaBelief({"w": np.ones(3)}, **options)


def test_an_unknown_override():
    with pytest.raises(TypeError, match="unexpected keyword argument 'decay'"):
        AdaBelief({"w": np.ones(3)}, overrides={"w": {"decay": 0.1}})


def test_a_kernel_that_is_not_installed(monkeypatch):
    monkeypatch.setattr("adabelief_core._inplace.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'adabelief\[fast\]'"):
        AdaBelief({"w": np.ones(3)}, kernel="numba")


def test_a_share_writes_nothing_outside_itself(monkeypatch):
    """Another thread works on the first half while this one sets up its iterator over the second."""
    p, m = np.zeros(100, np.float16), np.zeros(100, np.float32)
    nditer = np.nditer

    def interrupted(*args, **options):
        iterator = nditer(*args, **options)
        p[:50] = 7
        return iterator

    monkeypatch.setattr(np, "nditer", interrupted)
    work = _Work(lambda job: lambda p, *others: p.fill(1), stored=False)
    work([(Job(p, np.ones_like(p), m, m.copy(), None, None, None, None), 50, 100)])
    same(p, np.repeat(np.float16([7, 1]), 50))
