"""The file of a run: whole or not at all, and nothing is read that was not written."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import safe_open
from safetensors.numpy import save_file

from adabelief_core import AdaBelief, Hyperparameters
from adabelief_core.portable import Entry, Snapshot, snapshot
from adabelief_core.portable import _file as file_module

DTYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64", "complex64", "complex128"]


def entry(p, step=3, **fields):
    p = np.asarray(p)
    wide = {"float16": "float32", "bfloat16": "float32"}.get(p.dtype.name, p.dtype)
    return Entry(step, p, p.astype(wide), p.astype(wide), **fields)


def assert_same(ours, theirs):
    assert ours.entries.keys() == theirs.entries.keys()
    for name, one in ours.entries.items():
        other = theirs.entries[name]
        assert (one.step, one.h) == (other.step, other.h)
        for key in "pmsvk":
            a, b = getattr(one, key), getattr(other, key)
            assert (a is None) == (b is None)
            if a is not None:
                assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(lambda text: text.isprintable()),
        st.tuples(
            st.sampled_from(DTYPES).flatmap(
                lambda dtype: hnp.arrays(
                    np.uint8, st.tuples(st.integers(0, 3), st.integers(0, 3), st.just(np.dtype(dtype).itemsize))
                ).map(lambda raw: raw.view(dtype)[..., 0])
            ),
            st.integers(0, 2**40),
            st.sampled_from([None, Hyperparameters(lr=0.1), Hyperparameters(lr=1e-3, betas=(0.5, 0.9), rectify=True)]),
        ),
        max_size=4,
    )
)
def test_any_run_comes_back_as_it_was(tmp_path_factory, found):
    """Any bits, NaNs' payloads among them, any name, any step."""
    taken = Snapshot({name: entry(p, step, h=h) for name, (p, step, h) in found.items()})
    path = tmp_path_factory.mktemp("run") / "run.safetensors"
    taken.save(path)
    assert_same(Snapshot.load(path), taken)


@pytest.fixture
def taken():
    options = {"lr": 0.1, "amsgrad": True, "kahan_sum": True, "update_clip": 0.5}
    optimizer = AdaBelief({"w": np.ones((2, 3), "f4"), "b/c": np.array(2.0)}, **options)
    optimizer.step({"w": np.ones((2, 3), "f4"), "b/c": np.array(1.0)})
    return snapshot(optimizer)


@pytest.fixture
def path(tmp_path, taken):
    taken.save(tmp_path / "run.safetensors")
    return tmp_path / "run.safetensors"


def test_it_reads_without_this_package(path, taken):
    with safe_open(path, "np") as file:
        assert sorted(file.keys()) == sorted(f"{key}/{name}" for key in "pmsvk" for name in ("w", "b/c"))
        np.testing.assert_array_equal(file.get_tensor("s/w"), taken.entries["w"].s)
        metadata = file.metadata()
    assert (metadata["format"], metadata["version"]) == ("adabelief", "1")
    run = json.loads(metadata["run"])
    assert run["parameters"]["w"] == {"step": 1, "dtype": "float32", "hyperparameters": 0}
    assert run["hyperparameters"][0]["eps"] == 1e-16
    assert "added to the denominator" in run["meaning"]["eps"]
    assert "at every step" in run["meaning"]["eps_root"]


def test_an_option_that_an_older_file_lacks_is_at_its_default(path, taken):
    with safe_open(path, "np") as file:
        arrays, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    run = json.loads(metadata["run"])
    assert run["hyperparameters"][0].pop("update_clip") == 0.5
    metadata["run"] = json.dumps(run)
    metadata["sha256"] = file_module._digest(metadata["run"], arrays)
    save_file(arrays, path, metadata)
    h = Snapshot.load(path).hyperparameters
    assert h == replace(taken.hyperparameters, update_clip=None)


def test_bfloat16_reads_in_a_process_that_has_not_heard_of_it(tmp_path):
    Snapshot({"w": entry(np.ones(2, ml_dtypes.bfloat16))}).save(tmp_path / "run")
    code = "import sys, adabelief_core.portable as x; print(x.Snapshot.load(sys.argv[1]).entries['w'].p.dtype)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "run"], capture_output=True, text=True, check=True)
    assert done.stdout == "bfloat16\n"


def test_arrays_in_any_layout(tmp_path):
    wide = np.arange(24.0).reshape(4, 6)
    taken = Snapshot({"t": entry(wide.T), "s": entry(wide[:, ::2]), "r": entry(wide[::-1]), "0": entry(np.float32(1))})
    taken.save(tmp_path / "run")
    assert_same(Snapshot.load(tmp_path / "run"), taken)


def test_a_file_cut_anywhere_is_refused(path, tmp_path):
    whole = path.read_bytes()
    cut = tmp_path / "cut"
    for length in range(len(whole)):
        cut.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"Invalid file '.*cut'"):
            Snapshot.load(cut)


def test_a_file_with_any_byte_altered_is_refused_or_the_same(path, taken, tmp_path):
    """The same: white space that only fills the header."""
    whole = path.read_bytes()
    altered = tmp_path / "altered"
    same = 0
    for position in range(len(whole)):
        for bit in (1, 128):
            altered.write_bytes(whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :])
            with contextlib.suppress(ValueError):
                assert_same(Snapshot.load(altered), taken)
                same += 1
    assert same < 8


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "no snapshot of adabelief"),
        ({"format": "pt"}, "no snapshot of adabelief"),
        ({"format": "adabelief", "version": "2"}, r"format version '2' \(this adabelief reads version 1\)"),
        ({"format": "adabelief", "version": "1"}, "altered"),
        ({"format": "adabelief", "version": "1", "run": "{}", "sha256": "0"}, "altered"),
    ],
)
def test_a_foreign_file_is_refused(metadata, message, tmp_path):
    save_file({"p/w": np.ones(2)}, tmp_path / "foreign", metadata)
    with pytest.raises(ValueError, match=f"Invalid file '.*foreign': .*{message}"):
        Snapshot.load(tmp_path / "foreign")


@pytest.mark.parametrize("content", [b"", b"no safetensors", b"\x80\x02}q\x00.", b"PK\x03\x04" * 100])
def test_no_safetensors_at_all(content, tmp_path):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match="no safetensors file, or a damaged one"):
        Snapshot.load(tmp_path / "text")


def test_no_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        Snapshot.load(tmp_path / "none")
    with pytest.raises(OSError, match=r"Cannot write '.*run': .*No such file"):
        Snapshot({}).save(tmp_path / "no folder" / "run")


STAGES = ["safetensors.numpy.save_file", "os.fsync", "os.replace"]


@pytest.mark.parametrize("stage", STAGES)
def test_an_error_leaves_the_old_file_alone(stage, path, taken, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stage, fail)
    with pytest.raises(OSError, match="No space left"):
        Snapshot({}).save(path)
    monkeypatch.undo()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert_same(Snapshot.load(path), taken)


KILLED = """
import os, signal, sys
import numpy as np
import safetensors.numpy
from adabelief_core.portable import Entry, Snapshot

path, module, name, call = sys.argv[1:]
original, left = getattr(sys.modules[module], name), int(call)

def deadly(*arguments, **named):
    global left
    if left == 0:
        if name == "save_file":
            # As if the disk had taken half of it.
            original(*arguments, **named)
            os.truncate(arguments[1], os.path.getsize(arguments[1]) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    return original(*arguments, **named)

setattr(sys.modules[module], name, deadly)
Snapshot({"new": Entry(9, np.ones(1000), np.ones(1000), np.ones(1000))}).save(path)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this platform")
@pytest.mark.parametrize(
    ("stage", "call", "survivor"),
    [
        ("safetensors.numpy.save_file", 0, "old"),
        ("os.fsync", 0, "old"),
        ("os.replace", 0, "old"),
        ("os.fsync", 1, "new"),  # of the folder
    ],
)
def test_a_process_that_is_killed_leaves_the_old_file_or_the_new_one(stage, call, survivor, tmp_path):
    path = tmp_path / "run"
    Snapshot({"old": entry(np.ones(2))}).save(path)
    module, _, name = stage.rpartition(".")
    done = subprocess.run([sys.executable, "-c", KILLED, path, module, name, str(call)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(Snapshot.load(path).entries) == [survivor]
    Snapshot({"next": entry(np.ones(2))}).save(path)
    assert list(Snapshot.load(path).entries) == ["next"]


def test_the_file_reaches_the_disk_before_its_name_does(tmp_path, monkeypatch):
    order = []
    sync, move = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda descriptor: (order.append("sync"), sync(descriptor)))
    monkeypatch.setattr(file_module.os, "replace", lambda *names: (order.append("rename"), move(*names)))
    Snapshot({}).save(tmp_path / "run")
    assert order == ["sync", "rename", "sync"]
