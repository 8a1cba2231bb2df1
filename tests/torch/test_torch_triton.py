"""The Triton kernels of `fused=True` without a GPU: their bits in Triton's interpreter, and the code they compile to.

Triton decides once a process whether it interprets: the tests marked so run in a child of `test_in_the_interpreter`.
"""

import functools
import importlib.util
import os
import re
import subprocess
import sys
import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from adabelief_core import Hyperparameters, coefficients, compensated, step_scalars, update
from adabelief_core.parity import DTYPES, Mode, State, check, compare, covering, quick
from adabelief_torch._parity import to_array, to_tensor
from adabelief_torch._tensors import Tensors

if not importlib.util.find_spec("triton"):
    pytest.skip("needs Triton", allow_module_level=True)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
interpreted = pytest.mark.skipif(not INTERPRETED, reason="runs in the child of test_in_the_interpreter")
compiled = pytest.mark.skipif(INTERPRETED, reason="Triton interprets in this process")

COMPUTE = {torch.float64: torch.float64, torch.complex64: torch.complex64}
OPTIONS = {"eps": 1e-8, "weight_decay": 0.1, "rectify": True, "amsgrad": True, "nesterov": True, "kahan_sum": True}


@compiled
def test_in_the_interpreter():
    child = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stdout + child.stderr
    assert re.search(r"\d{2} passed", child.stdout), child.stdout


@pytest.fixture(autouse=True)
def _ignore_overflow():
    # NumPy, which the interpreter computes with, warns of the infinities that some tests are about.
    with np.errstate(all="ignore"):
        yield


def fused(*args, **kwargs):
    from adabelief_torch._triton import update_fused

    update_fused(*args, **kwargs)


class Fused:
    """`update_fused` under the parity harness."""

    def __init__(self, problem):
        self.h = problem.h
        self.p = {name: to_tensor(p) for name, p in problem.params().items()}
        self.m, self.s, self.v, self.k = ({name: moment(p) for name, p in self.p.items()} for _ in range(4))
        self.steps = {name: torch.zeros(()) for name in self.p}

    def step(self, grads):
        batch = [
            tensors(p, to_tensor(grads[name]), self.m[name], self.s[name], self.v[name], self.k[name], self.h)
            for name, p in self.p.items()
        ]
        fused(batch, list(self.steps.values()), self.h, self.h.lr)

    def state(self):
        p, m, s, v, k = (
            {name: to_array(x) for name, x in xs.items()} for xs in (self.p, self.m, self.s, self.v, self.k)
        )
        return State(p, m, s, v if self.h.amsgrad else None, k if self.h.kahan_sum else None)


def moment(p):
    return torch.zeros_like(p, dtype=COMPUTE.get(p.dtype, torch.float32))


def tensors(p, g, m, s, v, k, h):
    xs = [p, g, m, s, v if h.amsgrad else None, k if h.kahan_sum else None]
    return Tensors(*(torch.view_as_real(x) if x is not None and x.is_complex() else x for x in xs))


def broken(problems, start=Fused):
    mode = Mode("fused", start)
    return {problem.name: result for problem in problems if (result := check(mode, problem)).differing}


FEW = ("scalar", "empty", "strided", "spread", "huge", "tiny", "nonfinite")


@interpreted
@pytest.mark.parametrize("part", range(4))
def test_every_option_and_pair_of_options_has_the_rules_bits(part):
    assert not broken(covering("float32", steps=2, tensors=FEW)[part::4])


@interpreted
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_has_the_rules_bits(dtype):
    others = covering(dtype, steps=2, tensors=FEW)[2::4] if dtype != "float32" else []
    assert not broken([*quick(dtype, steps=3), *others])


@interpreted
def test_across_the_switch_of_rectification_and_into_subnormal_moments_it_has_the_rules_bits():
    few = ("scalar", "odd", "fading", "nonfinite")
    assert not broken(problem for dtype in ("float32", "float16") for problem in quick(dtype, tensors=few))


class OneUlpOff(Fused):
    """A kernel that is wrong in the last place of one number of one tensor."""

    where = "p"

    def state(self):
        state = super().state()
        x = getattr(state, self.where)["spread"]
        x[7] = np.nextafter(x[7], x.dtype.type(np.inf))
        return state


@interpreted
@pytest.mark.parametrize("where", ["p", "m", "s", "v", "k"])
def test_one_ulp_in_one_element_is_seen(monkeypatch, where):
    monkeypatch.setattr(OneUlpOff, "where", where)
    problem = quick("float32", steps=1, tensors=("scalar", "spread"))[1]
    assert check(Mode("off", OneUlpOff), problem).differing == 1
    assert not check(Mode("fused", Fused), problem).differing


def reference(p, g, m, s, v, k, h, t):
    """The readable rule on copies: the new p, m, s, v, k as arrays."""
    p, g, m, s, v, k = map(to_array, (p, g, m, s, v, k))
    wide = p.astype(m.dtype)
    delta, m, s, new_v = update(wide, g.astype(m.dtype), m, s, v, coefficients(h, t, m.dtype), h.variant)
    if h.kahan_sum:
        delta, k = compensated(wide, delta, k, stored=lambda x: x.astype(p.dtype).astype(m.dtype))
    return (wide + delta).astype(p.dtype), m, s, new_v if h.amsgrad else v, k


class Row:
    """One tensor's part, with memory from `make(dtype)`, and what the rule makes of it."""

    def __init__(self, make, dtype=torch.float32, t=0.0, g_dtype=None):
        compute = COMPUTE.get(dtype, torch.float32)
        self.p, self.g, self.m = make(dtype), make(g_dtype or dtype), make(compute)
        self.s, self.v = make(compute).square_(), make(compute).square_()
        self.k = make(compute).mul_(1e-4)
        self.t = torch.tensor(float(t))

    @property
    def all(self):
        return self.p, self.g, self.m, self.s, self.v, self.k

    def expected(self, h):
        return reference(*self.all, h, int(self.t) + 1)

    def assert_is(self, expected):
        for x, y in zip((self.p, self.m, self.s, self.v, self.k), expected, strict=True):
            assert compare(to_array(x), np.asarray(y)).count == 0


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lambda dtype: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def take_step(rows, h, **options):
    batch = [tensors(*row.all, h) for row in rows]
    fused(batch, [row.t for row in rows], h, **{"lr": h.lr, **options})


def assert_steps(rows, h, **options):
    """Every row takes the rule's step, and counts it."""
    expected, counts = [row.expected(h) for row in rows], [row.t + 1 for row in rows]
    take_step(rows, h, **options)
    for row, new, count in zip(rows, expected, counts, strict=True):
        row.assert_is(new)
        assert row.t == count


@interpreted
def test_many_tensors_at_steps_of_their_own():
    h = Hyperparameters(**OPTIONS)
    rows = [Row(noise(i * 7 % 13, seed=i), t=[0, 4, 5, 9999][i % 4]) for i in range(60)]
    assert any(row.p.numel() == 0 for row in rows)
    assert_steps(rows, h)
    assert_steps(rows, h)


@interpreted
def test_several_blocks_and_their_borders():
    from adabelief_torch._triton_table import BLOCK

    h = Hyperparameters(**OPTIONS)
    assert_steps([Row(noise(n)) for n in (BLOCK - 1, 2 * BLOCK, 0, BLOCK + 1, 1, 3 * BLOCK - 5)], h)


@interpreted
@pytest.mark.parametrize("which", ["all", "g"])
def test_memory_at_any_address(which):
    def misaligned(dtype):
        return noise(1101)(dtype)[77:]

    row = Row(misaligned)
    if which == "g":
        row = Row(noise(1024))
        row.g = misaligned(torch.float32)
    assert row.g.data_ptr() % 16
    assert_steps([row], Hyperparameters(**OPTIONS))


@interpreted
def test_strides_of_any_kind():
    def transposed(dtype):
        return noise(5, 7)(dtype).t()

    def with_gaps(dtype):
        return noise(6, 8)(dtype)[:, ::2]

    def channels_last(dtype):
        return noise(2, 3, 4, 5)(dtype).to(memory_format=torch.channels_last)

    h = Hyperparameters(**OPTIONS)
    rows = [Row(make) for make in (transposed, with_gaps, channels_last, noise(7, 5))]
    rows[-1].g = transposed(torch.float32)  # another order than its parameter
    rows[-1].s = rows[-1].s.t().contiguous().t()
    rows.append(Row(with_gaps))
    rows[-1].m, rows[-1].g = rows[-1].m.contiguous(), torch.ones(()).expand(6, 4)
    gaps = rows[1].p._base[:, 1::2].clone()
    assert_steps(rows, h)
    assert torch.equal(rows[1].p._base[:, 1::2], gaps)


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_in_the_compute_dtype(dtype):
    assert_steps([Row(noise(300), dtype, g_dtype=torch.float32)], Hyperparameters(**OPTIONS))


@interpreted
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_to_half_precision_is_numpys(dtype):
    # In momentum SGD from p = 0 with lr = 1, the new p is -g: every exponent, then float16's; ties, overflow, NaN.
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2**32, 40_000, np.uint32)
    x[20_000:] = np.ldexp(rng.uniform(-2, 2, 20_000), rng.integers(-27, 17, 20_000)).astype(np.float32).view(np.uint32)
    x[::4] = (x[::4] & 0xFFFF0000) | 0x8000
    x[1::4] = (x[1::4] & 0xFFFFE000) | 0x1000
    x[:4] = 0x7F7F7FFF, 0x7F7F8000, 0x7F800000, 0x7FFFFFFF  # bfloat16's largest, infinities, a NaN that would carry
    x = torch.from_numpy(x.view(np.float32))
    h = Hyperparameters(lr=1.0, betas=(0.0, 0.0), eps=1.0, eps_root=0.0, rectify=True)
    row = Row(noise(len(x)), dtype, g_dtype=torch.float32)
    row.p.zero_()
    row.g = x
    assert_steps([row], h)
    assert torch.equal(row.p[20_000:], -x[20_000:].to(dtype))
    assert row.p.isnan().any()
    assert row.p.isinf().any()
    assert row.p.unique().numel() > 10_000


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("lr_dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_learning_rate_as_a_tensor(dtype, lr_dtype, shape):
    lr = torch.full(shape, 0.3, dtype=lr_dtype)
    h = Hyperparameters(lr=lr.item(), weight_decay=0.1)
    row = Row(noise(50), dtype)
    assert_steps([row], h, lr=lr)
    lr.fill_(0.7)
    assert_steps([row], Hyperparameters(lr=lr.item(), weight_decay=0.1), lr=lr)


@interpreted
@pytest.mark.parametrize("lr", [0.0, 5e-324, 1e-3, 3.0])
def test_learning_rate_as_a_number(lr):
    assert_steps([Row(noise(50), torch.float64), Row(noise(3), torch.float64)], Hyperparameters(lr=lr))


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_gradients_are_divided_by_their_scale_and_only_read(dtype):
    h = Hyperparameters(**OPTIONS, maximize=True)
    row = Row(noise(50), dtype, g_dtype=None if dtype is torch.float64 else torch.float32)
    scale = torch.tensor([3.0])
    given = row.g
    row.g = given / 3.0
    expected = row.expected(h)
    row.g, before = given, given.clone()
    take_step([row], h, grad_scale=scale, found_inf=torch.zeros(1))
    row.assert_is(expected)
    assert torch.equal(row.g, before)
    assert row.t == 1


@interpreted
def test_the_largest_second_moment_stays_nan_as_numpys_maximum_does():
    row = Row(noise(9))
    row.v[2], row.s[5], row.v[6] = torch.nan, torch.nan, 0.0
    assert_steps([row], Hyperparameters(amsgrad=True))
    assert row.v.isnan().nonzero().flatten().tolist() == [2, 5]


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_direction_is_bounded_and_stays_nan(dtype):
    # Before rectification divides by anything: u is the first moment, and k is 10.
    h = Hyperparameters(lr=1.0, rectify=True, update_clip=0.15)
    row = Row(noise(40), dtype, g_dtype=torch.float32 if dtype is torch.bfloat16 else None)
    row.m[3], row.g[4], row.m[5], row.m[6] = torch.nan, torch.nan, torch.inf, -torch.inf
    row.p.zero_()
    assert_steps([row], h)
    length = row.p.double().abs()
    assert length.isnan().nonzero().flatten().tolist() == [3, 4]
    finite = length[~length.isnan()]
    assert finite.max() == row.p[5].double().abs() == pytest.approx(1.5, rel=2**-8)
    assert (finite < 1.4).sum() > 3


@interpreted
def test_nothing_changes_where_an_infinity_was_found():
    rows = [Row(noise(5)), Row(noise(2000)), Row(noise(0))]
    before = [[x.clone() for x in (*row.all, row.t)] for row in rows]
    take_step(rows, Hyperparameters(**OPTIONS), grad_scale=torch.ones(1), found_inf=torch.ones(1))
    for row, old in zip(rows, before, strict=True):
        assert all(map(torch.equal, (*row.all, row.t), old))
    assert_steps(rows, Hyperparameters(**OPTIONS), found_inf=torch.zeros(1))


@interpreted
def test_autograd_sees_the_write():
    row = Row(noise(5))
    version = row.p._version
    take_step([row], Hyperparameters())
    assert row.p._version > version


@interpreted
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"rectify": True},
        {"rectify": True, "degenerated_to_sgd": False},
        {"betas": (0.0, 0.0)},
        {"betas": (0.5, 0.6), "rectify": True},
        {"betas": (0.99, 0.999999), "rectify": True},
        {"betas": (1 - 2**-53, 1 - 2**-50)},
    ],
)
def test_the_steps_scalars_have_the_cores_bits(dtype, options):
    from adabelief_torch._triton_prepare import COLUMNS, ROWS, prepare
    from adabelief_torch._triton_table import SHARED, device_table, header

    h = Hyperparameters(lr=1 / 3, weight_decay=0.3, eps=1e-9, eps_root=0.7, update_clip=1 / 7, **options)
    rng = np.random.default_rng(0)
    counts = [
        *range(12),
        99,
        9_999,
        999_999,
        2**24 - 1,
        2**31 - 256,
        2**31,
        2**40,
        *rng.integers(0, 2**24, 13).tolist(),
    ]
    steps = torch.tensor(counts, dtype=torch.float32)
    n, real = len(steps), to_array(torch.zeros((), dtype=dtype)).dtype
    shared = header(h.betas, h.eps, h.eps_root, h.weight_decay, h.update_clip, dtype)
    table, _ = device_table(shared, (1,) * n, (*(step.data_ptr() for step in steps), *[0] * (4 * n)), steps)
    scalars = torch.full((SHARED.value + COLUMNS * n,), torch.nan, dtype=dtype)
    lr = int(np.float64(h.lr).view(np.int64))
    prepare[(-(-n // ROWS),)](table, scalars, n, lr, h.rectify, h.degenerated_to_sgd, ROWS)

    scale, belief_scale, look_ahead, adaptive = np.array(
        [step_scalars(np.float64(min(int(t) + 1, 2**31 - 1)), h) for t in steps], np.float64
    ).T
    wanted = [np.full(n, -h.lr), scale, belief_scale, look_ahead, adaptive, steps.numpy() + np.float32(1)]
    got = to_array(scalars[SHARED.value :]).reshape(COLUMNS, n)
    for name, x, y in zip(("-lr", "k", "c", "look-ahead", "adaptive", "count"), got, wanted, strict=True):
        assert compare(x, y.astype(real)).count == 0, name
    c = coefficients(h, 1, real)
    numbers = np.array([*c[:8], c.smallest_normal, *[0] * 7], real)
    assert compare(to_array(scalars[: SHARED.value]), numbers).count == 0
    assert np.array_equal(steps.numpy(), np.float32(counts))


class Step:
    """What a captured step sees of a step count on a device."""

    is_cuda = True
    device = torch.device("cpu")


def test_each_captured_table_has_memory_of_its_own_as_long_as_the_state_lives(monkeypatch):
    from adabelief_torch import _triton_table

    reserve = _triton_table._Reserve()
    monkeypatch.setattr(_triton_table, "_reserve", reserve)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    step, header = Step(), (7,) * _triton_table.HEADER.value
    with pytest.raises(RuntimeError, match="only after a step outside"):
        _triton_table.device_table(header, (5,), tuple(range(5)), step)
    reserve._free = torch.zeros(500, dtype=torch.int64)
    tables = [_triton_table.device_table(header, (5,), tuple(range(i, i + 5)), step)[0] for i in range(3)]
    for i, table in enumerate(tables):
        assert table.tolist() == [*header, i, 5, 0, *range(i + 1, i + 5)]
    with pytest.raises(RuntimeError, match="only after a step outside"):
        _triton_table.device_table(header, (5,), tuple(range(5)), step)
    kept = weakref.ref(tables[1])
    del tables, table
    assert kept() is not None
    del step
    assert kept() is None


class Aside:
    """What stands in for a GPU's driver while kernels are compiled for it."""

    def __init__(self, capability):
        self.capability = capability

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self):
        return self  # each compiles anew

    def get_current_stream(self, device):
        return 0


@pytest.fixture
def machine_code(monkeypatch, tmp_path):
    """A step that is compiled and not taken: the PTX of its kernels."""
    from triton.runtime.driver import driver

    from adabelief_torch._triton_prepare import prepare
    from adabelief_torch._triton_update import update as update_kernel

    texts, devices = {}, {}
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))

    def instead(kernel, name):
        run = type(kernel).run

        def compile_only(*args, warmup, **kwargs):
            code = run(kernel, *args, warmup=True, **kwargs)
            assert not code.metadata.enable_fp_fusion
            texts[name] = code.asm["ptx"]

        monkeypatch.setattr(kernel, "run", compile_only)

    def compile_step(h, dtype=torch.float32, g_dtype=None, capability=90, n=2, **options):
        monkeypatch.setattr(driver, "_active", devices.setdefault(capability, Aside(capability)))
        take_step([Row(noise(5), dtype, g_dtype=g_dtype) for _ in range(n)], h, **options)
        return SimpleNamespace(**texts)

    instead(prepare, "prepare")
    instead(update_kernel, "update")
    return compile_step


def operations(ptx):
    """The instructions of PTX, with their modifiers."""
    return re.findall(r"^\s*(?:@!?%p\d+ )?([a-z]\w*(?:\.\w+)+)", ptx, re.M)


def unrounded(ptx):
    """Instructions that do not round each operation of the rule once, as IEEE 754 has it."""
    inexact = re.compile(r"^(fma|mad)\.\w*\.?(f16|f32|f64|bf16)|\.(approx|full|ftz)(\.|$)")
    arithmetic = re.compile(r"^(add|sub|mul|div|sqrt)\.(?:\w+\.)*(f32|f64)$")
    return [op for op in operations(ptx) if inexact.search(op) or (arithmetic.search(op) and ".rn." not in op)]


def test_what_is_not_rounded_is_found():
    ptx = "\n\tadd.rn.f32 \t%r1, %r2;\n\t@%p3 sqrt.rn.f64 \t%rd1;\n\tmul.wide.s32 \t%rd2;\n\tmad.lo.s32 \t%r1;"
    assert operations(ptx) == ["add.rn.f32", "sqrt.rn.f64", "mul.wide.s32", "mad.lo.s32"]
    assert not unrounded(ptx)
    bad = ["fma.rn.f32", "div.full.f32", "sqrt.approx.ftz.f32", "mul.f32", "add.rn.ftz.f32", "sqrt.approx.f32"]
    assert unrounded("\n".join(f"\t{op} %r1, %r2;" for op in bad)) == bad


DTYPES = [
    (torch.float32, None),
    (torch.float64, None),
    (torch.bfloat16, None),
    (torch.float16, torch.float32),
    (torch.bfloat16, torch.float32),
    (torch.float16, None),
]


@functools.cache
def problems():
    return covering("float32")


@compiled
@pytest.mark.parametrize("part", range(4))
def test_every_operation_is_compiled_to_one_that_rounds_once(machine_code, part):
    for i, problem in list(enumerate(problems()))[part::4]:
        dtype, g_dtype = DTYPES[i % len(DTYPES)]
        scaler = {"grad_scale": torch.ones(1), "found_inf": torch.zeros(1)} if i % 2 else {}
        code = machine_code(problem.h, dtype, g_dtype, **scaler)
        float_type = "f64" if dtype is torch.float64 else "f32"
        for ptx in (code.prepare, code.update):
            assert not unrounded(ptx), problem.name
        assert {f"sqrt.rn.{float_type}", f"div.rn.{float_type}"} <= set(operations(code.update))
        assert {"sqrt.rn.f64", "div.rn.f64"} <= set(operations(code.prepare))


@compiled
@pytest.mark.parametrize("capability", [75, 80, 100])
def test_other_devices_compile_the_same_operations(machine_code, capability):
    code = machine_code(Hyperparameters(**OPTIONS), torch.bfloat16, capability=capability)
    assert f"sm_{capability}" in code.update
    assert not unrounded(code.update)
    assert not unrounded(code.prepare)


@compiled
def test_aligned_memory_moves_16_bytes_an_instruction(machine_code):
    moves = {"ld": 4, "st": 3}  # p, g, m, s and p, m, s
    for dtype, suffix, per_thread in ((torch.float32, "v4.b32", 2), (torch.float64, "v2.b64", 4)):
        found = operations(machine_code(Hyperparameters(), dtype).update)
        for op, tensors_moved in moves.items():
            assert found.count(f"{op}.global.{suffix}") == tensors_moved * per_thread


@compiled
def test_numbers_that_change_do_not_compile_anew(machine_code, monkeypatch):
    import triton

    count = []
    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", lambda **kwargs: count.append(kwargs["repr"]))
    for n in (1, 2, 16, 17, 1000):
        for lr in (1e-3, 0.125, 3.0):
            machine_code(Hyperparameters(betas=(0.5, 0.123 / n), maximize=True), n=n, lr=lr)
    assert len(count) == 2  # one of each kernel
