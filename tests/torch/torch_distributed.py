"""Two processes of gloo on a CPU, and what they do in the tests of `test_torch_distributed.py`."""

import tempfile
import traceback
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from adabelief_core.parity import compare
from adabelief_torch._distributed import spread
from adabelief_torch._parity import to_array

WORLD = 2
OPTIONS = {"lr": 0.01, "weight_decay": 0.1, "rectify": True, "amsgrad": True, "nesterov": True, "eps": 1e-8}
SHAPES = [(5, 3), (1, 4), (8,), (2, 3, 2), (0, 3)]
"""Of parameters that two processes share unevenly, or of which one has nothing."""


class Processes:
    """Processes of one group that wait for work."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        self._tasks = [context.Queue() for _ in range(WORLD)]
        self._results = context.Queue()
        arguments = [(rank, f"{self._folder.name}/store", self._tasks[rank], self._results) for rank in range(WORLD)]
        self._processes = [context.Process(target=_serve, args=each, daemon=True) for each in arguments]
        for process in self._processes:
            process.start()

    def run(self, work, *args):
        """Call `work(*args)` in all of them.

        Returns:
            What the first returned.

        Raises:
            AssertionError: One of them raised; with its traceback.
        """
        for queue in self._tasks:
            queue.put((work, args))
        results = dict(self._results.get(timeout=300) for _ in range(WORLD))
        errors = [f"rank {rank}: {error}" for rank, (_, error) in sorted(results.items()) if error]
        assert not errors, "\n".join(errors)
        return results[0][0]

    def close(self):
        """End them."""
        for queue in self._tasks:
            queue.put(None)
        for process in self._processes:
            process.join()
        self._folder.cleanup()


def _serve(rank, store, tasks, results):
    torch.set_num_threads(1)
    timeout = timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=WORLD, timeout=timeout)
    while (task := tasks.get()) is not None:
        work, args = task
        try:
            results.put((rank, (work(*args), None)))
        except BaseException:
            results.put((rank, (None, traceback.format_exc())))
    dist.destroy_process_group()


def network(dtype=torch.float32, bias=True):
    """A model whose layers two processes cannot share evenly."""
    torch.manual_seed(0)
    layers = (torch.nn.Linear(5, 7, bias), torch.nn.Tanh(), torch.nn.Linear(7, 3, bias))
    return torch.nn.Sequential(*layers).to(dtype)


def gradients(shapes, step):
    """The whole gradients of a step."""
    generator = torch.Generator().manual_seed(step)
    return [torch.randn(tuple(shape), generator=generator) for shape in shapes]


def whole(x):
    """All of a distributed tensor, or a plain one as it is."""
    return x.full_tensor() if isinstance(x, DTensor) else x


def assert_same(optimizer, single):
    """The parameters and states of an optimizer are, bit for bit, those of one in a single process."""
    ours, theirs = ([p for group in one.param_groups for p in group["params"]] for one in (optimizer, single))
    assert ours
    for p, q in zip(ours, theirs, strict=True):
        pairs = [(p, q)]
        assert optimizer.state[p].keys() == single.state[q].keys()
        pairs += [(x, single.state[q][key]) for key, x in optimizer.state[p].items()]
        for x, y in pairs:
            # What lies here beside what would, so that the process that errs is the one to say so.
            part, expected = (x.to_local(), spread(y.detach(), x).to_local()) if isinstance(x, DTensor) else (x, y)
            assert compare(to_array(part), to_array(expected)).count == 0


def steps(optimizer, count, start=0):
    """Steps with the gradients of these numbers, each process with its own part of them."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    for t in range(start, start + count):
        for p, whole_gradient in zip(params, gradients([p.shape for p in params], t), strict=True):
            g = whole_gradient.to(p.dtype)
            p.grad = spread(g, p) if isinstance(p, DTensor) else g
        optimizer.step()


def two_dimensional():
    """A mesh of one replica that two processes share."""
    return init_device_mesh("cpu", (1, WORLD), mesh_dim_names=("replicas", "shards"))
