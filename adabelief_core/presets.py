"""The settings that AdaBelief's authors recommend, task by task: `AdaBelief(params, **presets.GAN)`.

Each is a row of the "Table of Hyper-parameters" in the README of
https://github.com/juntang-zhuang/Adabelief-Optimizer (as of adabelief-pytorch 0.1.0), under the names of
`adabelief_core.AdaBelief`; the adapters have them under their own: `from adabelief_torch import presets`, and so for
`adabelief_tf` and `adabelief_jax`. They are read-only mappings; `{**presets.GAN, "lr": 1e-4}` is
another.

The authors' package adds its one ε to the denominator and to the second moment, so `eps_root` is None here: it
follows `eps`. Where nothing decays the table leaves `weight_decouple` open ("True=False"), and it is the default
here. The table says nothing of schedules, clipping or batches. Its advice to take ε a hundred times larger in
TensorFlow is for adabelief-tf; the step of `adabelief_tf` is the same as everywhere.

Example:
    >>> import numpy as np
    >>> from adabelief_core import AdaBelief, presets
    >>> optimizer = AdaBelief({"w": np.ones(2)}, **presets.GAN)
    >>> optimizer = AdaBelief({"w": np.ones(2)}, **{**presets.GAN, "lr": 1e-4})
    >>> presets.GAN["betas"], presets.GAN["eps"]
    ((0.5, 0.999), 1e-12)
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

__all__ = [
    "CIFAR",
    "GAN",
    "IMAGENET",
    "LSTM_1",
    "LSTM_2_3",
    "OBJECT_DETECTION",
    "REINFORCEMENT_HALFCHEETAH",
    "REINFORCEMENT_RAINBOW",
    "SN_GAN",
    "TRANSFORMER",
]


def _row(
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float = 0.0,
    *,
    decoupled: bool = True,
    rectify: bool = False,
) -> Mapping[str, Any]:
    """A row of the table, in the order of its columns; the last two of them are False in all rows."""
    return MappingProxyType(
        {
            "lr": lr,
            "betas": (beta1, beta2),
            "eps": eps,
            "eps_root": None,
            "weight_decay": weight_decay,
            "weight_decouple": decoupled,
            "rectify": rectify,
            "fixed_decay": False,
            "amsgrad": False,
        }
    )


CIFAR = _row(1e-3, 0.9, 0.999, 1e-8, 5e-4, decoupled=False)
"""CIFAR-10 and -100 ("Cifar"). The decay is coupled. The script `classification_cifar10/run.sh` has the same learning
rate, betas and ε."""

IMAGENET = _row(1e-3, 0.9, 0.999, 1e-8, 1e-2)
"""ImageNet ("ImageNet"). The script `imagenet/run.sh` has the same numbers."""

OBJECT_DETECTION = _row(1e-4, 0.9, 0.999, 1e-8, 1e-4, decoupled=False)
"""Detection on PASCAL VOC ("Object detection (PASCAL)"). The decay is coupled. The experiment is not the authors' own,
and was made with adabelief-pytorch 0.0.5, whose defaults are others than today's."""

LSTM_1 = _row(1e-3, 0.9, 0.999, 1e-16, 1.2e-6, decoupled=False)
"""Language modelling with an LSTM of one layer ("LSTM-1layer"). The decay is coupled. The script
`LSTM/run_all_layer1.py` has the same learning rate and ε; another section of the README gives 1e-12 for all
LSTMs."""

LSTM_2_3 = _row(1e-2, 0.9, 0.999, 1e-12, 1.2e-6, decoupled=False)
"""Language modelling with an LSTM of two or three layers ("LSTm 2,3 layer"). The decay is coupled. The scripts
`LSTM/run_all_layer2.py` and `run_all_layer3.py` have the same learning rate and ε."""

GAN = _row(2e-4, 0.5, 0.999, 1e-12)
"""Small GANs, WGAN and WGAN-GP ("GAN (small)"). `wgan-gp/run.sh` has the same ε, and `wgan/main.py`, where it is not
told otherwise, the same learning rate and betas."""

SN_GAN = _row(2e-4, 0.5, 0.999, 1e-16, rectify=True)
"""A residual GAN with spectral normalization ("SN-GAN (large)"). Rectified, although the README says that
rectification gave none of the paper's results. https://github.com/juntang-zhuang/SNGAN-AdaBelief has the same
learning rate and betas."""

TRANSFORMER = _row(5e-4, 0.9, 0.999, 1e-16, 1e-4, rectify=True)
"""Translation with a Transformer ("Transformer"). https://github.com/juntang-zhuang/fairseq-adabelief has the same
numbers, with a warm-up of 4,000 steps; https://github.com/juntang-zhuang/transformer-adabelief, for an older
PyTorch, a learning rate of 1.5e-3."""

REINFORCEMENT_RAINBOW = _row(1e-4, 0.9, 0.999, 1e-10, rectify=True)
"""Rainbow on a small problem ("Reinforcement (Rainbow)"). https://github.com/juntang-zhuang/rainbow-adabelief has the
same learning rate and ε."""

REINFORCEMENT_HALFCHEETAH = _row(1e-3, 0.9, 0.999, 1e-16, rectify=True)
"""Soft actor-critic on HalfCheetah-v2 ("Reinforcement (HalfCheetah-v2)"), of which
https://github.com/juntang-zhuang/SAC-Adabelief is the code."""
