"""The authors' recommended settings: `AdaBelief(params, **presets.GAN)`.

Those of `adabelief_core.presets`, which says where they come from; PyTorch's names are the core's.
"""

from adabelief_core.presets import (
    CIFAR,
    GAN,
    IMAGENET,
    LSTM_1,
    LSTM_2_3,
    OBJECT_DETECTION,
    REINFORCEMENT_HALFCHEETAH,
    REINFORCEMENT_RAINBOW,
    SN_GAN,
    TRANSFORMER,
)

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
