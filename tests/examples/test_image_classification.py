"""Image classification: the smoke version, the readers of local datasets, and the networks."""

import io
import pickle
import random
import struct
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from smoke import check_smoke, command, rows

from examples.harness import RIVALS, DataError, cifar
from examples.image_classification import imagenet
from examples.image_classification.data import Images, crop_and_flip, load
from examples.image_classification.experiment import EXPERIMENT, train
from examples.image_classification.models import build


def test_smoke_and_that_nothing_is_trained_again(tmp_path):
    printed = check_smoke(EXPERIMENT, tmp_path)
    runs = tmp_path / EXPERIMENT.name / "runs"
    before = {path: path.stat().st_mtime_ns for path in runs.iterdir()}
    again = command(EXPERIMENT.name, tmp_path, "--smoke")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs.iterdir()} == before
    assert again.stdout == printed


def test_digits_are_split_and_standardized():
    images = load("digits", None)
    parts = [images.train, images.validation, images.test]
    assert [len(part.y) for part in parts] == [700, 300, 797]
    x = torch.cat([x for x, _ in images.train.ordered(500)])
    assert x.shape == (700, 1, 8, 8)
    assert abs(x.mean()) < 1e-5
    assert abs(x.std() - 1) < 1e-5
    assert len({tuple(image.flatten().tolist()) for part in parts for image in part.x}) == 1797


class Python2(pickle._Pickler):
    """Writes bytes as Python 2 wrote its strings, and NumPy's module by its old name: as the original files are."""

    def save_string(self, value):
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch: ClassVar = {**pickle._Pickler.dispatch, bytes: save_string}


def python2(content):
    Python2(file := io.BytesIO(), 2).dump(content)
    return file.getvalue().replace(b"numpy._core", b"numpy.core")


def write_cifar(folder, kind, count):
    """A dataset of random images, in the layout of the original."""
    inner = folder / kind.folder
    inner.mkdir()
    rng = np.random.default_rng(0)
    for name in (*kind.train, kind.test):
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        labels = [i % kind.classes for i in range(count)]
        (inner / name).write_bytes(python2({b"data": data, kind.labels: labels, b"batch_label": b"x"}))
    return data


@pytest.mark.parametrize(("dataset", "kind"), [("cifar10", cifar.CIFAR10), ("cifar100", cifar.CIFAR100)])
@pytest.mark.parametrize("inside", [False, True])
def test_cifar(tmp_path, dataset, kind, inside):
    data = write_cifar(tmp_path, kind, 20)
    images = load(dataset, tmp_path / kind.folder if inside else tmp_path)
    total = 20 * len(kind.train)
    assert (len(images.train.y), len(images.validation.y), len(images.test.y)) == (total * 9 // 10, total // 10, 20)
    assert images.classes == kind.classes
    assert images.train.augment
    assert not images.test.augment
    # A row of the file is the red, then the green, then the blue image.
    assert images.test.x[3, 1, 2, 5] == data[3, 1024 + 2 * 32 + 5]
    assert images.test.y.tolist() == [i % kind.classes for i in range(20)]
    x, y = next(images.train.shuffled(8, torch.Generator().manual_seed(0)))
    assert (x.shape, x.dtype, y.shape) == ((8, 3, 32, 32), torch.float32, (8,))


def test_cifar_of_a_folder_without_it(tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-batches-py.*data_batch_1.*missing: data_batch_1"):
        load("cifar10", tmp_path)
    done = command("image_classification", tmp_path, "--dataset", "cifar10", "--data", tmp_path, "--smoke")
    assert done.returncode == 2
    assert "expected the folder cifar-10-batches-py" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(random.Random(0)),
        python2({b"data": np.zeros((2, 3), np.uint8), b"labels": [0, 1]}),
        python2({b"data": np.zeros((2, 3072), np.float32), b"labels": [0, 1]}),
        python2({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}),
        python2({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0, 10]}),
        python2([1]),
        b"not a pickle",
        b"",
    ],
    ids=["class", "shape", "dtype", "count", "label", "list", "text", "empty"],
)
def test_cifar_of_a_file_that_is_another(tmp_path, content):
    write_cifar(tmp_path, cifar.CIFAR10, 4)
    path = tmp_path / cifar.CIFAR10.folder / "data_batch_2"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"Invalid file: .*data_batch_2 \(expected"):
        load("cifar10", tmp_path)


def test_a_pickle_runs_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return (tmp_path.joinpath("ran").touch, ())

    write_cifar(tmp_path, cifar.CIFAR10, 4)
    (tmp_path / cifar.CIFAR10.folder / "test_batch").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(DataError, match="is not allowed"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()


def test_crops_are_shifted_or_mirrored_images():
    image = torch.arange(1, 17, dtype=torch.uint8).view(1, 1, 4, 4).expand(200, 1, 4, 4)
    found = crop_and_flip(image, torch.Generator().manual_seed(0), margin=1)
    padded = torch.nn.functional.pad(image[0, 0], (1, 1, 1, 1))
    crops = [padded[i : i + 4, j : j + 4] for i in range(3) for j in range(3)]
    possible = {tuple(crop.flatten().tolist()) for crop in crops}
    possible |= {tuple(crop.flip(1).flatten().tolist()) for crop in crops}
    assert {tuple(crop.flatten().tolist()) for crop in found} == possible


def test_one_seed_one_order():
    y = torch.arange(50)
    images = Images(torch.rand(50, 1, 8, 8), y, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    batches = [images.shuffled(8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    orders = [torch.cat([y for _, y in epoch]).tolist() for epoch in batches]
    assert orders[0] == orders[1] != orders[2]
    assert len(set(orders[0])) == 48


def write_imagenet(folder, classes=("cat", "dog"), count=20):
    rng = np.random.default_rng(0)
    for part, number in (("train", count), ("val", 2)):
        for name in classes:
            (folder / part / name).mkdir(parents=True)
            for i in range(number):
                pixels = rng.integers(0, 256, (10, 14 + i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / name / f"{i:02}.png")
    (folder / "train" / classes[0] / "list.txt").write_text("no image")


def test_imagenet(tmp_path):
    write_imagenet(tmp_path)
    images = load("imagenet", tmp_path)
    assert images.train.y.tolist() == [0] * 19 + [1] * 19
    assert [path.name for path in images.validation.paths] == ["19.png"] * 2
    assert images.test.y.tolist() == [0, 0, 1, 1]
    assert images.classes == 2
    batches = [list(images.train.shuffled(8, torch.Generator().manual_seed(seed))) for seed in (0, 0, 1)]
    assert len(batches[0]) == 4
    x, y = batches[0][0]
    assert (x.shape, x.dtype, y.shape) == ((8, 3, 224, 224), torch.float32, (8,))
    assert torch.equal(x, batches[1][0][0])
    assert not torch.equal(x, batches[2][0][0])
    x, _ = next(images.test.ordered(3))
    assert x.shape == (3, 3, 224, 224)


def test_imagenet_crops():
    assert imagenet.crop_box((100, 50), 1 - 1e-9, 0.5, 0, 0) == (0, 0, pytest.approx(70.7, abs=0.1), 50)
    x, y, right, bottom = imagenet.crop_box((100, 100), 0, 0.5, 1, 1)
    assert (right - x) * (bottom - y) == pytest.approx(800)
    assert (right, bottom) == (100, 100)


def test_imagenet_of_a_folder_without_it(tmp_path):
    with pytest.raises(DataError, match=r"expected train/CLASS/\*.JPEG and val/CLASS"):
        load("imagenet", tmp_path)
    write_imagenet(tmp_path, count=3)
    with pytest.raises(DataError, match=r"cat has 3 images \(expected at least 20"):
        load("imagenet", tmp_path)
    write_imagenet(tmp_path / "other")
    (tmp_path / "other" / "val" / "cat" / "00.png").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"Invalid image: .*00.png"):
        list(load("imagenet", tmp_path / "other").test.ordered(4))


def test_fewer_images_than_a_batch(tmp_path):
    write_cifar(tmp_path, cifar.CIFAR10, 4)
    run = train("vgg", torch.optim.SGD, 1, EXPERIMENT.settings["vgg"], tmp_path, "cifar10")
    with pytest.raises(DataError, match=r"18 training images \(expected at least a batch of 32\)"):
        next(run)


def test_cifar_by_one_option(tmp_path):
    write_cifar(tmp_path, cifar.CIFAR10, 30)
    arguments = ("--dataset", "cifar10", "--data", tmp_path, "--paper", "--smoke", "--variants", "vgg")
    done = command("image_classification", tmp_path / "out", *arguments, "--optimizers", "adabelief")
    assert done.returncode == 0, done.stderr
    (line,) = rows(tmp_path / "out" / "image_classification" / "image_classification.csv")
    assert (line["dataset"], line["variant"], line["optimizer"]) == ("cifar10", "vgg", "adabelief")
    assert '"batch_size":128' in line["settings"]


def test_the_papers_settings():
    for dataset in ("cifar10", "cifar100"):
        for settings in EXPERIMENT.paper[dataset].values():
            assert (settings.epochs, settings.milestones, settings.batch_size) == (200, (150,), 128)
    (settings,) = EXPERIMENT.paper["imagenet"].values()
    assert (settings.epochs, settings.milestones, settings.batch_size, settings.decoupled) == (90, (70, 80), 256, True)
    made = RIVALS["adabelief"].make([torch.nn.Parameter(torch.ones(1))], 1e-3, settings)
    assert (made.defaults["eps"], made.defaults["weight_decay"], made.defaults["weight_decouple"]) == (1e-8, 1e-2, True)


@pytest.mark.parametrize(
    ("variant", "dataset", "size", "millions"),
    # VGG-11's convolutions (9.2 million), ResNet-34 (21.3), DenseNet-121 (7.0), ResNet-18 (11.7 with its classifier).
    [("vgg", "cifar10", 32, 9.23), ("resnet", "cifar10", 32, 21.28), ("densenet", "cifar10", 32, 6.96)]
    + [("resnet", "imagenet", 64, 11.69), ("densenet", "imagenet", 64, 7.98)]
    + [(variant, "digits", 8, 0.02) for variant in ("vgg", "resnet", "densenet")],
)
def test_networks(variant, dataset, size, millions):
    channels, classes = (1 if dataset == "digits" else 3), (1000 if dataset == "imagenet" else 10)
    model = build(variant, dataset, channels, classes).eval()
    with torch.no_grad():
        assert model(torch.zeros(2, channels, size, size)).shape == (2, classes)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=0.01)


def test_a_run_that_diverges_ends_in_nan():
    settings = replace(EXPERIMENT.settings["vgg"], epochs=5)
    found = list(train("vgg", lambda p: torch.optim.SGD(p, 1e30), 1, settings, None, "digits"))
    assert len(found) < 5
    assert np.isnan(found[-1]["test_accuracy"])
    assert np.isnan(found[-1]["validation_accuracy"])
