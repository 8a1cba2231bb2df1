"""`adabelief inspect` and `adabelief convert` on this package's own files; each framework's are its adapter's tests."""

import json
import re

import numpy as np
import pytest

from adabelief_core import AdaBelief, _cli
from adabelief_core.portable import Entry, Snapshot, snapshot


@pytest.fixture
def taken():
    optimizer = AdaBelief({"l.weight": np.ones((2, 3)), "l.bias": np.ones(2)}, lr=0.1, betas=(0.9, 0.75))
    optimizer.step({"l.weight": np.full((2, 3), 4.0), "l.bias": np.ones(2)})
    return snapshot(optimizer)


@pytest.fixture
def path(tmp_path, taken):
    taken.save(tmp_path / "run.safetensors")
    return tmp_path / "run.safetensors"


def test_inspect(path, taken, capsys):
    assert _cli.main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    # m = 0.1·4; g - m = 3.6, of which √ŝ is the size after one step; both times √6 for six elements.
    m, root = f"{0.4 * 6**0.5:.4g}", f"{3.6 * 6**0.5:.4g}"
    assert re.search(rf"^l.weight +2×3 +float64 +1 +{m} +{root} +0$", out, re.MULTILINE)
    assert "2 parameters of 8 elements" in out
    assert "Hyperparameters: lr=0.1, betas=(0.9, 0.75), eps=1e-16" in out


def test_inspect_counts_what_is_not_finite_and_says_what_is_not_known(tmp_path, capsys):
    x = np.float32([[np.nan, np.inf], [1, 2]])
    entries = {
        "scalar": Entry(0, np.float64(2), np.float64(0), np.float64(0)),
        "bad": Entry(3, x, x, x),
        "complex": Entry(1, np.ones(2, "c8"), np.array([3 + 4j, 0], "c8"), np.ones(2, "c8")),
    }
    Snapshot(entries).save(tmp_path / "x.safetensors")
    assert _cli.main(["inspect", str(tmp_path / "x.safetensors")]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^scalar +scalar +float64 +0 +0 +\? +0$", out, re.MULTILINE)
    assert re.search(r"^bad +2×2 +float32 +3 +nan +\? +6$", out, re.MULTILINE)
    assert re.search(r"^complex +2 +complex64 +1 +5 +\? +0$", out, re.MULTILINE)
    assert "Hyperparameters: not known" in out


@pytest.mark.parametrize(
    "mapping",
    [
        {"l.weight": {"name": "l/kernel", "axes": [1, 0]}, "l.bias": "l/bias"},
        {"source": "torch", "target": "keras", "layers": {"l": ["dense", "l"]}},
    ],
)
def test_convert_with_a_mapping(mapping, path, taken, tmp_path, capsys):
    (tmp_path / "map.json").write_text(json.dumps(mapping))
    target = tmp_path / "there.safetensors"
    assert _cli.main(["convert", str(path), str(target), "--mapping", str(tmp_path / "map.json")]) == 0
    there = Snapshot.load(target).entries
    assert list(there) == ["l/kernel", "l/bias"]
    for key in "pms":
        np.testing.assert_array_equal(getattr(there["l/kernel"], key), getattr(taken.entries["l.weight"], key).T)
    assert "[1/2] reading" in (err := capsys.readouterr().err)
    assert "[2/2] writing 2 parameters" in err


def test_a_reshape_in_a_mapping(path, tmp_path):
    (tmp_path / "map.json").write_text(json.dumps({"l.weight": {"name": "w", "shape": [6]}, "l.bias": "b"}))
    assert _cli.main(["convert", str(path), str(path), "--mapping", str(tmp_path / "map.json")]) == 0
    assert Snapshot.load(path).entries["w"].m.shape == (6,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "none.safetensors"], "none.safetensors"),
        (["inspect", "text.safetensors"], "Invalid file 'text.safetensors': no safetensors file, or a damaged one"),
        (["inspect", "text.txt"], "Invalid file: 'text.txt' (expected a name that ends in .safetensors, .pt,"),
        (["convert", "text.txt", "x.safetensors"], "Invalid source: 'text.txt'"),
        (["convert", "run.safetensors", "x.txt"], "Invalid target: 'x.txt'"),
        (["convert", "run.safetensors", "x.safetensors", "--mapping", "text.txt"], "Invalid mapping 'text.txt'"),
        (["convert", "run.safetensors", "x.safetensors", "--mapping", "list.json"], "Invalid mapping 'list.json'"),
        (["convert", "run.safetensors", "x.safetensors", "--mapping", "key.json"], "Invalid mapping 'key.json'"),
        (["convert", "run.safetensors", "x.safetensors", "--mapping", "few.json"], "without a partner: 'l.weight'"),
    ],
)
def test_a_refusal_is_one_line_and_status_1(arguments, message, path, monkeypatch, capsys):
    monkeypatch.chdir(path.parent)
    for name in ("text.safetensors", "text.txt"):
        (path.parent / name).write_text("no")
    (path.parent / "list.json").write_text("[1]")
    (path.parent / "key.json").write_text('{"l.weight": {"name": "w", "axis": [1, 0]}}')
    (path.parent / "few.json").write_text('{"l.bias": "b"}')
    before = path.read_bytes()
    assert _cli.main(arguments) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("adabelief: error: ")
    assert message in last
    assert path.read_bytes() == before
    assert not [file for file in path.parent.iterdir() if file.name.startswith(("x.", "."))]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--set", "lr=0.5"], "Invalid --set lr=0.5 (the file says 0.1 of 'l.weight')"),
        (["--set", "betas=[0.9, 0.75]", "--set", "rectify=true"], "Invalid --set rectify=True (the file says False of"),
        (["--set", "momentum=0.5"], "Invalid --set momentum=0.5 (expected one of lr, betas, eps,"),
        (["--set", "lr=-1"], "Invalid lr: -1"),
        (["--model", "net.keras"], "Invalid --model: 'net.keras' (none of these files needs a model)"),
    ],
)
@pytest.mark.parametrize("command", [["inspect"], ["convert"]])
def test_no_option_is_ignored(command, option, message, path, capsys):
    target = path.parent / "x.safetensors"
    files = [str(path)] + [str(target)] * (command == ["convert"])
    assert _cli.main([*command, *files, *option]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not target.exists()


def test_what_the_file_does_not_say_can_be_set(tmp_path, capsys):
    one = np.ones(2)
    Snapshot({"w": Entry(1, one, one, one)}).save(tmp_path / "a.safetensors")
    files = [str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]
    settings = [part for option in ("lr=0.5", "betas=[0.8, 0.9]", "update_clip=2.5") for part in ("--set", option)]
    assert _cli.main(["convert", *files, *settings]) == 0
    h = Snapshot.load(files[1]).hyperparameters
    assert (h.lr, h.betas, h.update_clip) == (0.5, (0.8, 0.9), 2.5)
    assert _cli.main(["inspect", files[0], "--set", "betas=[0.5, 0.75]"]) == 0
    assert "betas=(0.5, 0.75)" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["lr", "lr=", "lr=one"])
def test_an_option_that_is_no_json(option, capsys):
    with pytest.raises(SystemExit) as stop:
        _cli.main(["inspect", "x.safetensors", "--set", option])
    assert stop.value.code == 2
    assert f"{option!r} (expected NAME=VALUE" in capsys.readouterr().err
