"""What several files of the PyTorch adapter's tests share."""

import pytest
import torch.distributed as dist


@pytest.fixture(scope="module")
def two():
    """Two processes of one group; see `torch_distributed.Processes`."""
    if not (dist.is_available() and dist.is_gloo_available()):
        pytest.skip("needs gloo")
    from torch_distributed import Processes

    processes = Processes()
    yield processes
    processes.close()
