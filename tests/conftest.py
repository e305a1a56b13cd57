"""Every test works on its own cache folder and never on published runs."""

import contextlib
import dataclasses
import subprocess
import sys

import pytest
import torch

from helpers import config, data, models

# Files that take longest, in seconds of one core: 120, 80, 40, 40, 40 of 450.
LONGEST = ("test_pipeline", "test_survival", "test_browser", "test_train", "test_experiments")


def pytest_collection_modifyitems(items):
    """Begin with the longest files, so that none is waited for: a process runs a file whole.

    pytest-xdist would begin with those of most tests, which are among the shortest, but for
    --no-loadscope-reorder.
    """
    place = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.fixture(autouse=True)
def own_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(config, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(config, "PUBLISHED", tmp_path / "published")
    yield
    for cached in (data.train_validation, data.test):
        if hasattr(cached, "cache_clear"):  # not where a test has put another function in its place
            cached.cache_clear()


HOLD = """
import sys
from pathlib import Path
from helpers import files
with files.locked(Path(sys.argv[1]), "at it"):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held_elsewhere():
    """A context: another process, which may be killed in it, holds a lock file."""

    @contextlib.contextmanager
    def hold(lock):
        command = [sys.executable, "-c", HOLD, lock]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=config.ROOT) as other:
            assert other.stdout.readline() == b"locked\n"
            yield other

    return hold


@pytest.fixture(scope="session")
def sample():
    """360 training and 40 validation images of real CIFAR-10."""
    return data.train_validation("smoke")


@pytest.fixture
def tiny():
    """A configuration with every kind of augmentation that trains in a second."""
    return dataclasses.replace(config.IMPROVED, epochs=3, batch_size=64, warmup_epochs=1, erasing=0.5)


@pytest.fixture(params=config.NETWORKS)
def model(request):
    """An untrained network whose running statistics are not the initial ones."""
    model = models.build(request.param, seed=2)
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.randn(8, 3, 32, 32))
    return model


@pytest.fixture
def short(monkeypatch):
    """The full profile in one epoch. Other learning rates make other runs."""

    def recipe(lr=0.01):
        cfg = dataclasses.replace(config.BASELINE, epochs=1, batch_size=120, peak_lr=lr)
        monkeypatch.setattr(config, "train_config", lambda network, profile, **changes: cfg)

    recipe()
    return recipe
