"""A run out of an optimizer and into another, in NumPy: what travels, and what is refused."""

import re
from dataclasses import replace

import numpy as np
import pytest

from adabelief_core import AdaBelief, Hyperparameters
from adabelief_core.parity import DTYPES, check, covering, quick
from adabelief_core.parity._numpy import adapter
from adabelief_core.portable import Entry, Move, Snapshot, count_of, layers, restore, snapshot

TENSORS = ("scalar", "empty", "odd", "strided", "nonfinite")


def trained(params, steps=2, **options):
    optimizer = AdaBelief(params, lr=0.1, **options)
    for _ in range(steps):
        optimizer.step({name: np.ones_like(p) for name, p in params.items()})
    return optimizer


def arrays(optimizer):
    """All that a step could change."""
    found = {}
    for name, entry in optimizer._entries.items():
        found[name, "p"] = entry.param.copy()
        found |= {
            (name, key): value.copy() for key, value in vars(entry.state).items() if isinstance(value, np.ndarray)
        }
        found[name, "step"] = np.array(entry.state.step)
    return found


def assert_unchanged(optimizer, before):
    after = arrays(optimizer)
    assert after.keys() == before.keys()
    for key, x in before.items():
        np.testing.assert_array_equal(after[key], x)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mode", adapter.modes(), ids=lambda mode: mode.name)
def test_a_run_through_a_file_after_every_step_has_the_bits_of_one_that_stays(mode, dtype, tmp_path):
    # What travels is the same for all kernels, and numba would compile each problem's.
    problems = quick if mode.name == "numba" else covering
    for problem in problems(dtype, steps=4, tensors=TENSORS):
        result = check(mode, problem, through=tmp_path / "run.safetensors")
        assert (result.differing, result.first) == (0, ""), problem.name


@pytest.mark.parametrize("key", ["p", "m", "s", "v", "k"])
def test_one_ulp_on_the_way_is_seen(key, tmp_path, monkeypatch):
    """In an array of a snapshot, between two steps."""
    mode = adapter.modes()[0]
    problem = covering("float32", steps=3, tensors=("odd",))[0]
    problem = replace(problem, options={"amsgrad": True, "kahan_sum": True})
    load = Snapshot.load

    def tampered(path):
        entry = load(path).entries["odd"]
        x = getattr(entry, key).copy()
        x[0, 0] = np.nextafter(x[0, 0], np.float32(9))
        return Snapshot({"odd": replace(entry, **{key: x})})

    monkeypatch.setattr(Snapshot, "load", tampered)
    assert check(mode, problem, through=tmp_path / "run").first.startswith("step 1, ")


def test_a_snapshot_holds_copies():
    params = {"w": np.ones(3)}
    optimizer = trained(params)
    taken = snapshot(optimizer)
    p, m = taken.entries["w"].p.copy(), taken.entries["w"].m.copy()
    optimizer.step({"w": np.ones(3)})
    np.testing.assert_array_equal(taken.entries["w"].p, p)
    np.testing.assert_array_equal(taken.entries["w"].m, m)


def test_restored_arrays_are_the_optimizers_own():
    taken = snapshot(trained({"w": np.ones(3)}, amsgrad=True))
    before = {key: getattr(taken.entries["w"], key).copy() for key in "pmsv"}
    other = AdaBelief({"w": np.zeros(3)}, lr=0.1, amsgrad=True)
    restore(other, taken)
    other.step({"w": np.ones(3)})
    for key, x in before.items():
        np.testing.assert_array_equal(getattr(taken.entries["w"], key), x)


def test_hyperparameters_are_those_of_the_last_step():
    optimizer = AdaBelief({"w": np.ones(1)}, lr=lambda step: 0.5**step, betas=(0.8, 0.9), weight_decay=0.1)
    for _ in range(3):
        optimizer.step({"w": np.ones(1)})
    h = snapshot(optimizer).hyperparameters
    assert (h.lr, h.betas, h.weight_decay) == (0.25, (0.8, 0.9), 0.1)


def test_hyperparameters_that_are_not_shared_or_not_known():
    one, none = np.ones(1), Entry(0, np.ones(1), np.ones(1), np.ones(1))
    some = Entry(0, one, one, one, h=Hyperparameters(lr=0.1))
    other = replace(some, h=Hyperparameters(lr=0.2))
    for entries in ({"a": none}, {"a": some, "b": other}, {"a": some, "b": none}, {}):
        with pytest.raises(ValueError, match="no hyperparameters that all parameters share"):
            _ = Snapshot(entries).hyperparameters


# What does not fit is refused, and nothing changes


@pytest.mark.parametrize(
    ("params", "options", "message"),
    [
        ({"w": np.ones(3)}, {}, "partner: 'b' of the snapshot, none of the optimizer"),
        ({"w": np.ones(3), "c": np.ones(2)}, {}, "partner: 'b' of the snapshot, 'c' of the optimizer"),
        ({"w": np.ones(4), "b": np.ones(2)}, {}, r"'w' is float64 of shape \[3\] \(expected float64 of shape \[4\]"),
        ({"w": np.ones(3, "f4"), "b": np.ones(2)}, {}, r"'w' is float64 .*expected float32 of shape \[3\]"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"amsgrad": True}, "'w' has no v, which amsgrad=True needs"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"kahan_sum": True}, "'w' has no k, which kahan_sum=True needs"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"betas": (0.5, 0.9)}, r"Invalid betas: \(0.5, 0.9\).*\(0.9, 0.999\)"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"eps": 1e-8}, "Invalid eps: 1e-08 .*1e-16"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"eps_root": 1e-8}, "Invalid eps_root: 1e-08 .*1e-16"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"rectify": True}, "Invalid rectify: True .*False"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"nesterov": True}, "Invalid nesterov: True .*False"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"maximize": True}, "Invalid maximize: True .*False"),
        ({"w": np.ones(3), "b": np.ones(2)}, {"weight_decay": 0.1}, "Invalid weight_decay: 0.1 .*0.0"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(params, options, message):
    taken = snapshot(trained({"w": np.ones(3), "b": np.zeros(2)}))
    optimizer = trained(params, 1, **options)
    before = arrays(optimizer)
    with pytest.raises(ValueError, match=message):
        restore(optimizer, taken)
    assert_unchanged(optimizer, before)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({"eps": 1e-8}, {"eps": 1e-8, "eps_root": 1e-8}),
        # Without decay there is no way to decay; without rectification nothing degenerates.
        ({"weight_decouple": False}, {}),
        ({"degenerated_to_sgd": False}, {}),
        ({"kahan_sum": False}, {"kahan_sum": None}),
    ],
)
def test_two_spellings_of_one_rule_are_one(ours, theirs):
    taken = snapshot(trained({"w": np.ones(3)}, **theirs))
    optimizer = AdaBelief({"w": np.zeros(3)}, lr=0.2, **ours)
    restore(optimizer, taken)
    assert optimizer._entries["w"].state.step == 2


def test_another_rule_on_request():
    taken = snapshot(trained({"w": np.ones(3)}))
    optimizer = AdaBelief({"w": np.zeros(3)}, lr=0.1, betas=(0.5, 0.9))
    restore(optimizer, taken, check_hyperparameters=False)
    assert optimizer._entries["w"].state.step == 2


def test_a_state_that_no_option_needs_is_left_behind():
    taken = snapshot(trained({"w": np.ones(3)}, amsgrad=True))
    optimizer = AdaBelief({"w": np.zeros(3)}, lr=0.1)
    restore(optimizer, taken, check_hyperparameters=False)
    assert optimizer._entries["w"].state.v is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step": -1}, r"Invalid step: -1 \(expected an integer >= 0\)"),
        ({"step": 1.0}, "Invalid step: 1.0"),
        ({"step": True}, "Invalid step: True"),
        ({"m": np.ones(2)}, r"Invalid m: float64 of shape \[2\] \(expected float64 of shape \[3\]\)"),
        ({"s": np.ones(3, "f4")}, r"Invalid s: float32 of shape \[3\] \(expected float64"),
        ({"v": np.ones(3, "f4")}, "Invalid v"),
        ({"k": np.ones((3, 1))}, "Invalid k"),
        ({"p": np.ones(3, "c16")}, r"Invalid m: float64 .*expected complex128"),
        ({"p": np.ones(3, "f2")}, r"Invalid m: float64 .*expected float32"),
        ({"p": np.ones(3, "i4")}, "Invalid dtype: <i4"),
    ],
)
def test_an_entry_whose_fields_do_not_fit_together(fields, message):
    one = np.ones(3)
    with pytest.raises((ValueError, TypeError), match=message):
        Entry(**{"step": 1, "p": one, "m": one, "s": one, **fields})


def test_one_count_for_all():
    one = np.ones(1)
    a, b = Entry(3, one, one, one), Entry(4, one, one, one)
    assert count_of({"a": a, "b": a}) == 3
    assert count_of({}) == 0
    with pytest.raises(ValueError, match="'a' is at step 3, 'b' is at step 4"):
        count_of({"a": a, "b": b})


# Other names and layouts


def test_axes_are_permuted_and_then_reshaped_in_all_arrays():
    optimizer = trained({"w": np.arange(24.0).reshape(2, 3, 4)}, amsgrad=True, kahan_sum=True)
    taken = snapshot(optimizer)
    there = taken.moved({"w": Move("kernel", (2, 0, 1), (4, 6))})
    assert list(there.entries) == ["kernel"]
    for key in "pmsvk":
        expected = np.transpose(getattr(taken.entries["w"], key), (2, 0, 1)).reshape(4, 6)
        np.testing.assert_array_equal(getattr(there.entries["kernel"], key), expected)
    back = there.moved(lambda name: Move("w", shape=(4, 2, 3))).moved({"w": Move("w", (1, 2, 0))})
    for key in "pmsvk":
        np.testing.assert_array_equal(getattr(back.entries["w"], key), getattr(taken.entries["w"], key))


def test_a_move_changes_no_trajectory():
    rng = np.random.default_rng(0)
    w, grads = rng.standard_normal((3, 4)), rng.standard_normal((6, 3, 4))
    here, there = {"w": w.copy()}, {"kernel": np.zeros((4, 3))}
    stays, goes = AdaBelief(here, lr=0.1, rectify=True), AdaBelief(there, lr=0.1, rectify=True)
    for g in grads[:3]:
        stays.step({"w": g})
    restore(goes, snapshot(stays), {"w": Move("kernel", (1, 0))})
    for g in grads[3:]:
        stays.step({"w": g})
        goes.step({"kernel": g.T})
    np.testing.assert_array_equal(here["w"], there["kernel"].T)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"a": "x"}, "without a partner: 'b' of the snapshot, none of the mapping"),
        ({"a": "x", "b": "y", "c": "z"}, "none of the snapshot, 'c' of the mapping"),
        ({"a": "x", "b": "x"}, "'a' and 'b' both become 'x'"),
        (lambda name: "x", "'a' and 'b' both become 'x'"),
        ({"a": Move("x", (1, 0)), "b": "y"}, r"'a' of shape \[3\] to Move\(name='x', axes=\(1, 0\), shape=None\)"),
        ({"a": "x", "b": Move("y", None, (5,))}, r"'b' of shape \[2\] to Move\(name='y', axes=None, shape=\(5,\)\)"),
        (layers("torch", "keras", {"a": ("dense", "x")}), "'a' belongs to none of the layers 'a'"),
    ],
)
def test_a_mapping_that_does_not_fit(mapping, message):
    taken = snapshot(trained({"a": np.ones(3), "b": np.ones(2)}))
    with pytest.raises(ValueError, match=message):
        taken.moved(mapping)


KINDS = {
    "dense": ((5, 3), (3, 5)),
    "conv1d": ((5, 3, 7), (7, 3, 5)),
    "conv2d": ((5, 3, 7, 2), (7, 2, 3, 5)),
    "conv3d": ((5, 3, 7, 2, 4), (7, 2, 4, 3, 5)),
    "embedding": ((5, 3), (5, 3)),
    "norm": ((5,), (5,)),
}
NAMES = {
    "torch": {"embedding": ["weight"], None: ["weight", "bias"]},
    "keras": {"embedding": ["embeddings"], "norm": ["gamma", "beta"], None: ["kernel", "bias"]},
    "flax": {"embedding": ["embedding"], "norm": ["scale", "bias"], None: ["kernel", "bias"]},
}


@pytest.mark.parametrize("target", NAMES)
@pytest.mark.parametrize("source", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_layers_have_each_frameworks_names_and_layouts(kind, source, target):
    def full(framework, layer):
        separator = "." if framework == "torch" else "/"
        names = NAMES[framework]
        return [f"{layer}{separator}{name}" for name in names.get(kind, names[None])]

    torch_shape, other_shape = KINDS[kind]
    shape, expected = (torch_shape if framework == "torch" else other_shape for framework in (source, target))
    x = np.arange(np.prod(torch_shape), dtype=float).reshape(torch_shape)
    if shape != torch_shape:
        x = np.transpose(x, layers("torch", source, {"l": (kind, "l")})("l.weight").axes)
    params = dict(zip(full(source, "l"), [x.copy(), np.ones(torch_shape[0])], strict=False))
    assert x.shape == shape
    there = snapshot(trained(params)).moved(layers(source, target, {"l": (kind, "to")}))
    assert list(there.entries) == full(target, "to")
    assert there.entries[full(target, "to")[0]].p.shape == expected
    back = there.moved(layers(target, source, {"to": (kind, "l")}))
    np.testing.assert_array_equal(back.entries[full(source, "l")[0]].p, params[full(source, "l")[0]])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pytorch", "keras", {}), "Invalid source: 'pytorch' (expected one of 'torch', 'keras', 'flax')"),
        (("torch", "tf", {}), "Invalid target: 'tf'"),
        (("torch", "keras", {"0": ("linear", "x")}), "Invalid kind of layer '0': 'linear' (expected one of 'dense',"),
    ],
)
def test_layers_of_unknown_kinds(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        layers(*arguments)
