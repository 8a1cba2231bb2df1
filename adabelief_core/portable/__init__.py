"""A run of AdaBelief that belongs to no framework: take it out of one, save it, and go on in another, bit for bit.

Each adapter has two verbs: `snapshot` takes parameters, their state and the hyperparameters out of an optimizer, by
name; `restore` puts them into another. Between the two lies a `Snapshot`, in memory or in one `.safetensors` file that
needs no framework to be read. Models that name or lay out their parameters otherwise are bridged by `layers`, or by a
table of `Move`.
"""

from adabelief_core.portable._adapt import count_of, fitted, refuse_other_hyperparameters
from adabelief_core.portable._file import replacing
from adabelief_core.portable._layers import layers
from adabelief_core.portable._moves import Mapping, Move
from adabelief_core.portable._numpy import restore, snapshot
from adabelief_core.portable._snapshot import Entry, Snapshot

__all__ = [
    "Entry",
    "Mapping",
    "Move",
    "Snapshot",
    "count_of",
    "fitted",
    "layers",
    "refuse_other_hyperparameters",
    "replacing",
    "restore",
    "snapshot",
]
