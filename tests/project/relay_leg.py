"""One leg of a relay: take runs from files, go on with them in one framework, and write them back.

Its argument is JSON: the adapter's name, the folder of the files, the first and the last step, the dtypes, and for each
step up to the last whether Δ is rounded in it as Optax does. It prints JSON: the number of runs, and where one left
the run that never moves.
"""

import json
import os
import sys
from pathlib import Path

from adabelief_core.parity import Reference, covering, differences, quick
from adabelief_core.parity._process import entry_points
from adabelief_core.portable import Snapshot

TENSORS = ("scalar", "odd", "nonfinite")


def problems(dtypes, **fields):
    """Each pair of options in float32, most of the options at once in the others."""
    sets = ((covering if dtype == "float32" else quick)(dtype, tensors=TENSORS, **fields) for dtype in dtypes)
    return [problem for problems in sets for problem in problems]


def left_at(mode, problem, file, first, last, rounded):
    """Where a run differs from the rule, after each step of this leg."""
    run, reference = mode.start(problem), Reference(problem)
    if first > 1:
        run.restore(Snapshot.load(file))
    for step, grads in enumerate(problem.grads(), 1):
        reference.rounds_update = rounded[step - 1]
        reference.step(grads)
        if step >= first:
            run.step(grads)
            for kind, name, difference in differences(run.state(), reference.state()):
                if difference.count:
                    yield f"{problem.dtype}, {problem.name}: step {step}, {kind} of {name!r}"
        if step == last:
            run.snapshot().save(file)
            return


def main(name, folder, first, last, dtypes, rounded):
    mode = entry_points()[name].load().modes()[0]
    runs = problems(dtypes, steps=last)
    found = []
    for number, problem in enumerate(runs):
        file = Path(folder) / f"{number}.safetensors"
        found += left_at(mode, problem, file, first, last, rounded)
    return {"runs": len(runs), "differences": found}


if __name__ == "__main__":
    # Frameworks that print must not print into the answer.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with answer:
        json.dump(main(**json.loads(sys.argv[1])), answer)
