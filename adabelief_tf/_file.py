"""Files of Keras: a model with its optimizer, or its weights alone."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import keras

from adabelief_core.portable import Snapshot, replacing
from adabelief_core.portable._convert import Settings
from adabelief_tf._portable import restore, snapshot

_WEIGHTS = ".weights.h5"


def read(path: Path, settings: Settings) -> Snapshot:
    """Read a run.

    Args:
        path: A .keras file, or a .weights.h5 file of the same model as `settings.model`.
        settings: `model` is a .keras file whose model is compiled with AdaBelief.

    Raises:
        OSError: The file cannot be read.
        TypeError, ValueError: It is no such file, its model was not compiled with AdaBelief, or it has another state.
    """
    weights = path.name.endswith(_WEIGHTS)
    model = _model(settings, path) if weights else keras.saving.load_model(path)
    if weights:
        model.load_weights(path)
    return snapshot(model.optimizer, model)


def write(taken: Snapshot, path: Path, settings: Settings) -> None:
    """Write the model of `settings.model` with this run in it.

    Args:
        taken: The run, under the model's names and in its layouts.
        path: A .keras or .weights.h5 file.
        settings: As for `read`.

    Raises:
        OSError: The file cannot be written.
        TypeError, ValueError: The run does not fit the model or its optimizer.
    """
    model = _model(settings, path)
    restore(model.optimizer, model, taken)
    with replacing(path) as temporary:
        if path.name.endswith(_WEIGHTS):
            model.save_weights(temporary)
        else:
            model.save(temporary)


def _model(settings: Settings, path: Path) -> Any:
    if settings.model is None:
        raise ValueError(f"{os.fspath(path)!r} needs a model's architecture (--model FILE.keras)")
    with warnings.catch_warnings():
        # Of the state in this file, which another takes the place of.
        warnings.filterwarnings("ignore", "Skipping variable loading")
        return keras.saving.load_model(settings.model)
