"""The authors' recommended settings as arguments of `adabelief_tf.AdaBelief`: `AdaBelief(**presets.GAN)`.

Those of `adabelief_core.presets`, which says where they come from, in this package's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from adabelief_core import presets, spelt
from adabelief_tf._optimizer import SPELLING


def _here(preset: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(spelt(preset, SPELLING))


CIFAR = _here(presets.CIFAR)
IMAGENET = _here(presets.IMAGENET)
OBJECT_DETECTION = _here(presets.OBJECT_DETECTION)
LSTM_1 = _here(presets.LSTM_1)
LSTM_2_3 = _here(presets.LSTM_2_3)
GAN = _here(presets.GAN)
SN_GAN = _here(presets.SN_GAN)
TRANSFORMER = _here(presets.TRANSFORMER)
REINFORCEMENT_RAINBOW = _here(presets.REINFORCEMENT_RAINBOW)
REINFORCEMENT_HALFCHEETAH = _here(presets.REINFORCEMENT_HALFCHEETAH)
