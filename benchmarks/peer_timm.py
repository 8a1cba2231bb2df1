"""timm's AdaBelief, of which nothing but its one file is imported: all of timm needs torchvision."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path


def timm_adabelief() -> type:
    """The class.

    Raises:
        ModuleNotFoundError: timm is not installed.
    """
    if "timm_optim" not in sys.modules:
        found = importlib.util.find_spec("timm")
        if found is None:
            raise ModuleNotFoundError("timm is not installed (pip install --no-deps timm==1.0.31)", name="timm")
        package = types.ModuleType("timm_optim")
        package.__path__ = [str(Path(found.submodule_search_locations[0], "optim"))]
        sys.modules["timm_optim"] = package
    return importlib.import_module("timm_optim.adabelief").AdaBelief
