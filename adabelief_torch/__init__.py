"""AdaBelief for PyTorch: a `torch.optim.Optimizer` that follows that package's conventions.

On a CPU it runs the core's kernel on the tensors' own memory; elsewhere, and under `torch.compile`, the same rule
in PyTorch's operations. `snapshot` and `restore` move a run between frameworks; `presets` are the authors' recommended
settings.
"""

from adabelief_torch import presets
from adabelief_torch._optimizer import AdaBelief
from adabelief_torch._portable import restore, snapshot

__all__ = ["AdaBelief", "presets", "restore", "snapshot"]
