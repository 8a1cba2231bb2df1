"""A run out of Keras and into it, and between layers that other frameworks lay out otherwise."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from adabelief_core.parity import check, quick
from adabelief_core.portable import Entry, Move, Snapshot, layers
from adabelief_tf import AdaBelief, restore, snapshot
from adabelief_tf._parity import adapter

MODES = {mode.name: mode for mode in adapter.modes() if not mode.slow and mode.name != "graph"}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
@pytest.mark.parametrize("name", MODES)
def test_a_run_through_a_file_after_every_step_has_the_bits_of_one_that_stays(name, dtype, tmp_path):
    for problem in quick(dtype, steps=8, tensors=("scalar", "empty", "odd", "nonfinite")):
        result = check(MODES[name], problem, through=tmp_path / "run")
        assert (result.differing, result.first) == (0, ""), problem.name


def network(name="net", functional=False):
    keras.utils.set_random_seed(0)
    stem, head = keras.layers.Dense(4, activation="tanh", name="stem"), keras.layers.Dense(2, name="head")
    if functional:
        x = keras.Input((3,))
        return keras.Model(x, head(stem(x)), name=name)
    return keras.Sequential([keras.layers.Input((3,)), stem, head], name=name)


def steps(optimizer, model, seeds):
    for seed in seeds:
        rng = np.random.default_rng(seed)
        grads = [ops.convert_to_tensor(rng.standard_normal(v.shape), v.dtype) for v in model.trainable_variables]
        optimizer.apply(grads, model.trainable_variables)


def bits(model, optimizer):
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    return [ops.convert_to_numpy(v.value).tobytes() for v in [*model.trainable_variables, *inner.variables]]


RULES = [
    {},
    {"amsgrad": True, "rectify": True, "kahan_sum": True, "weight_decay": 0.1, "update_clip": 0.5},
    {"gradient_accumulation_steps": 2},
]


@pytest.mark.parametrize("options", RULES, ids=str)
@pytest.mark.parametrize("functional", [False, True])
def test_a_restored_optimizer_goes_on_as_the_old_one(functional, options):
    model, optimizer = network(), AdaBelief(0.25, **options)
    steps(optimizer, model, range(4))
    taken = snapshot(optimizer, model)
    assert list(taken.entries) == ["stem/kernel", "stem/bias", "head/kernel", "head/bias"]
    assert taken.entries["stem/kernel"].step == 4 // options.get("gradient_accumulation_steps", 1)
    other, fresh = network("other", functional), AdaBelief(0.25, **options)
    restore(fresh, other, taken)
    for seeds in ([], [4, 5, 6, 7]):
        steps(optimizer, model, seeds)
        steps(fresh, other, seeds)
        assert bits(other, fresh)[:-1] == bits(model, optimizer)[:-1]


def test_inside_a_loss_scale_optimizer():
    model, optimizer = network(), keras.optimizers.LossScaleOptimizer(AdaBelief(0.25), initial_scale=1.0)
    model.compile(optimizer=optimizer, loss="mse")
    model.fit(np.ones((6, 3), "float32"), np.zeros((6, 2), "float32"), batch_size=2, verbose=0)
    taken = snapshot(optimizer, model)
    assert taken.entries["head/bias"].step == 3
    other, fresh = network("other"), AdaBelief(0.25)
    restore(fresh, other, taken)
    assert bits(other, fresh) == bits(model, optimizer)


def test_a_compiled_model_goes_on():
    data = np.ones((8, 3), "float32"), np.zeros((8, 2), "float32")
    model = network()
    model.compile(optimizer=AdaBelief(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)), loss="mse")
    model.fit(*data, batch_size=4, verbose=0)
    taken = snapshot(model.optimizer, model)
    assert taken.hyperparameters.lr == pytest.approx(0.1 * 0.5**0.5)  # of the second step
    other = network("other")
    other.compile(optimizer=AdaBelief(keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5)), loss="mse")
    restore(other.optimizer, other, taken)
    for each in (model, other):
        each.fit(*data, batch_size=4, verbose=0)
    assert bits(other, other.optimizer) == bits(model, model.optimizer)


def test_variables_that_do_not_decay_say_so():
    model, optimizer = network(), AdaBelief(0.25, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    steps(optimizer, model, [0])
    decays = {name: entry.h.weight_decay for name, entry in snapshot(optimizer, model).entries.items()}
    assert decays == {"stem/kernel": 0.1, "stem/bias": 0.0, "head/kernel": 0.1, "head/bias": 0.0}
    with pytest.raises(ValueError, match=r"Invalid weight_decay: 0.1 \(expected 0.0, .*'stem/bias'"):
        restore(AdaBelief(0.25, weight_decay=0.1), network(), snapshot(optimizer, model))


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda taken: {}, {}, "none of the snapshot, 'stem/kernel', 'stem/bias', 'head/kernel', 'head/bias' of the"),
        (lambda taken: {**taken, "x": taken["head/bias"]}, {}, "'x' of the snapshot, none of the optimizer"),
        (lambda taken: {**taken, "head/bias": Entry(1, *[np.ones(3, "f4")] * 3)}, {}, r"float32 of shape \[3\]"),
        (lambda taken: {**taken, "head/bias": Entry(1, *[np.ones(2)] * 3)}, {}, "float64 .*expected float32"),
        (lambda taken: {**taken, "head/bias": Entry(7, *[np.ones(2, "f4")] * 3)}, {}, "is at step 1, .* at step 7"),
        (lambda taken: taken, {"amsgrad": True}, "has no v, which amsgrad=True needs"),
        (lambda taken: taken, {"kahan_sum": True}, "has no k, which kahan_sum=True needs"),
        (lambda taken: taken, {"beta_1": 0.5}, "Invalid betas"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_changes(change, options, message):
    model, optimizer = network(), AdaBelief(0.25)
    steps(optimizer, model, [0])
    taken = Snapshot(change(dict(snapshot(optimizer, model).entries)))
    other, fresh = network("other"), AdaBelief(0.25, **options)
    steps(fresh, other, [1])
    before = bits(other, fresh)
    with pytest.raises(ValueError, match=message):
        restore(fresh, other, taken)
    assert bits(other, fresh) == before


def test_optimizers_that_no_run_can_be_taken_from():
    model = network()
    with pytest.raises(TypeError, match=r"Invalid optimizer: .*expected an adabelief_tf\.AdaBelief"):
        snapshot(keras.optimizers.AdamW(), model)
    with pytest.raises(ValueError, match="use_ema=True"):
        snapshot(AdaBelief(use_ema=True), model)
    optimizer = AdaBelief(gradient_accumulation_steps=2)
    steps(optimizer, model, [0])
    with pytest.raises(ValueError, match="gathered 1 gradients of the next step"):
        snapshot(optimizer, model)
    twins = SimpleNamespace(name="net", trainable_variables=[keras.Variable(np.ones(2), name="w") for _ in range(2)])
    with pytest.raises(ValueError, match="two of its variables are named 'w'"):
        snapshot(AdaBelief(), twins)


def test_the_same_forward_pass_in_pytorch():
    """The ready-made rules for layers: what a PyTorch model computes, a Keras model computes after the move."""
    torch = pytest.importorskip("torch")
    if keras.backend.backend() != "torch":
        pytest.skip("one framework a process: on the PyTorch backend both are there")
    theirs = torch.nn.Sequential(
        torch.nn.Embedding(5, 6),
        torch.nn.Unflatten(1, (1, 4)),
        torch.nn.Conv2d(1, 3, (2, 3)),
        torch.nn.GroupNorm(1, 3, eps=1e-3),
        torch.nn.Flatten(2),
        torch.nn.Conv1d(3, 2, 2),
        torch.nn.Flatten(),
        torch.nn.Linear(22, 7),
        torch.nn.LayerNorm(7, eps=1e-3),
    )
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_()
    ours = keras.Sequential(
        [
            keras.layers.Input((4,), dtype="int32"),
            keras.layers.Embedding(5, 6, name="embedding"),
            keras.layers.Reshape((4, 6, 1)),
            keras.layers.Conv2D(3, (2, 3), name="conv2d"),
            keras.layers.GroupNormalization(1, name="group"),
            keras.layers.Reshape((12, 3)),
            keras.layers.Conv1D(2, 2, name="conv1d"),
            keras.layers.Permute((2, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(7, name="dense"),
            keras.layers.LayerNormalization(name="layer"),
        ],
        name="net",
    )
    table = {
        "0": ("embedding", "embedding"),
        "2": ("conv2d", "conv2d"),
        "3": ("norm", "group"),
        "5": ("conv1d", "conv1d"),
        "7": ("dense", "dense"),
        "8": ("norm", "layer"),
    }
    run = {name: p.detach().numpy() for name, p in theirs.named_parameters()}
    taken = Snapshot({name: Entry(1, p, np.full_like(p, 2), np.full_like(p, 3)) for name, p in run.items()})
    optimizer = AdaBelief()
    restore(optimizer, ours, taken, layers("torch", "keras", table))
    x = torch.tensor([[0, 1, 2, 3], [4, 3, 2, 1]])
    np.testing.assert_allclose(ours(x).detach().numpy(), theirs(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    back = snapshot(optimizer, ours).moved(layers("keras", "torch", {new: (k, old) for old, (k, new) in table.items()}))
    for name, p in run.items():
        np.testing.assert_array_equal(back.entries[name].p, p)


def test_a_mapping_by_hand():
    model, optimizer = network(), AdaBelief(0.25)
    steps(optimizer, model, [0])
    wide = keras.Variable(np.zeros((4, 3), "float32"), name="wide")
    taken = snapshot(optimizer, model)
    one = Snapshot({"stem/kernel": taken.entries["stem/kernel"]})
    restore(AdaBelief(0.25), {"w": wide}, one, {"stem/kernel": Move("w", (1, 0))})
    np.testing.assert_array_equal(ops.convert_to_numpy(wide.value).T, one.entries["stem/kernel"].p)
