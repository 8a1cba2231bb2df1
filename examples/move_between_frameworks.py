"""Train a classifier on handwritten digits in PyTorch, move it, go on in JAX, move it again, finish in Keras.

Parameters and the optimizer's state travel as one `Snapshot` between two epochs. The picture shows the one curve, and
the curve of a run that stays in PyTorch: they part as far as the frameworks' matrix products do.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ["KERAS_BACKEND"] = "jax"  # one library less in this process

import jax
import jax.numpy as jnp
import keras
import matplotlib as mpl
import numpy as np
import optax
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from tqdm import tqdm

import adabelief_jax
import adabelief_tf
import adabelief_torch
from adabelief_core.portable import Snapshot, layers

EPOCHS, BATCH, HIDDEN = 8, 64, 64
# The same rule by each framework's names of its arguments.
LR, EPS, DECAY = 3e-3, 1e-12, 1e-2
TO_FLAX = layers("torch", "flax", {"0": ("dense", "hidden"), "2": ("dense", "out")})
TO_KERAS = layers("flax", "keras", {"hidden": ("dense", "hidden"), "out": ("dense", "out")})


def batches(x, y, epoch):
    order = np.random.default_rng(epoch).permutation(len(x))
    for start in range(0, len(x), BATCH):
        index = order[start : start + BATCH]
        yield x[index], y[index]


class InTorch:
    def __init__(self):
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(64, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 10))
        self.optimizer = adabelief_torch.AdaBelief(self.model.parameters(), lr=LR, eps=EPS, weight_decay=DECAY)

    def step(self, x, y):
        loss = torch.nn.functional.cross_entropy(self.model(torch.from_numpy(x)), torch.from_numpy(y))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def out(self):
        return adabelief_torch.snapshot(self.optimizer, self.model.named_parameters())


class InJax:
    def __init__(self, taken):
        shapes = {"hidden": (64, HIDDEN), "out": (HIDDEN, 10)}
        params = {name: {"kernel": jnp.zeros(shape), "bias": jnp.zeros(shape[1])} for name, shape in shapes.items()}
        optimizer = adabelief_jax.adabelief(LR, eps=EPS, weight_decay=DECAY)
        self.state, self.params = adabelief_jax.restore(optimizer.init(params), params, taken, TO_FLAX)

        def loss(params, x, y):
            hidden = jnp.tanh(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
            logits = hidden @ params["out"]["kernel"] + params["out"]["bias"]
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        @jax.jit
        def step(params, state, x, y):
            value, grads = jax.value_and_grad(loss)(params, x, y)
            updates, state = optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state, value

        self._step = step

    def step(self, x, y):
        self.params, self.state, loss = self._step(self.params, self.state, x, y)
        return float(loss)

    def out(self):
        return adabelief_jax.snapshot(self.state, self.params)


class InKeras:
    def __init__(self, taken):
        dense = keras.layers.Dense
        self.model = keras.Sequential(
            [keras.layers.Input((64,)), dense(HIDDEN, "tanh", name="hidden"), dense(10, name="out")], name="digits"
        )
        optimizer = adabelief_tf.AdaBelief(LR, epsilon=EPS, weight_decay=DECAY)
        self.model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        adabelief_tf.restore(optimizer, self.model, taken, TO_KERAS)

    def step(self, x, y):
        return float(self.model.train_on_batch(x, y))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/move.png"), help="the picture (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="epochs in each framework (default: %(default)s)")
    arguments = parser.parse_args()
    data = load_digits()
    x, y = (data.data / 16).astype(np.float32), data.target
    losses = {"PyTorch": [], "JAX": [], "Keras": [], "stays in PyTorch": []}
    progress = tqdm(total=6 * arguments.epochs, unit="epoch")

    def train(run, name, first, count):
        for epoch in range(first, first + count):
            losses[name].append(np.mean([run.step(*batch) for batch in batches(x, y, epoch)]))
            progress.update()

    count = arguments.epochs
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "run.safetensors"
        run = InTorch()
        train(run, "PyTorch", 0, count)
        run.out().save(file)
        run = InJax(Snapshot.load(file))
        train(run, "JAX", count, count)
        run.out().save(file)
        train(InKeras(Snapshot.load(file)), "Keras", 2 * count, count)
    train(InTorch(), "stays in PyTorch", 0, 3 * count)
    progress.close()
    moved = losses["PyTorch"] + losses["JAX"] + losses["Keras"]
    apart = max(abs(a / b - 1) for a, b in zip(moved, losses["stays in PyTorch"], strict=True))
    print(
        f"Loss after {3 * count} epochs: {moved[-1]:.6f}; of the run that stays: {losses['stays in PyTorch'][-1]:.6f}."
    )
    print(f"The curves are never further apart than {apart:.1e} of the loss.")
    draw(losses, count, arguments.out)
    print(f"Picture: {arguments.out}")


def draw(losses, count, out):
    """The one curve in three colours, over that of the run that stays."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    axes.plot(
        range(1, 3 * count + 1), losses["stays in PyTorch"], color="lightgrey", linewidth=8, label="stays in PyTorch"
    )
    for number, name in enumerate(("PyTorch", "JAX", "Keras")):
        axes.plot(range(number * count + 1, (number + 1) * count + 1), losses[name], "o-", label=name)
    axes.set(xlabel="epoch", ylabel="training loss", yscale="log", title="One run of AdaBelief in three frameworks")
    axes.grid(alpha=0.3)
    axes.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
