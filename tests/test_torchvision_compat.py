"""torchvision works beside any torch: with its compiled extension as it is, without it through two declarations."""

import importlib.util

import pytest
import torch

from helpers import torchvision_compat
from helpers.torchvision_compat import OPERATORS, datasets, extension_loads, transforms_v2


def test_rotation_works():
    image = torch.arange(9.0).reshape(1, 3, 3)
    assert torch.equal(transforms_v2.functional.rotate(image, 90), torch.rot90(image, 1, (1, 2)))


def test_cifar10_reader_works(tmp_path):
    with pytest.raises(RuntimeError, match="Dataset not found"):  # torchvision's own answer to an empty folder
        datasets.CIFAR10(tmp_path, download=False)


@pytest.fixture
def declared(monkeypatch):
    """Import the module once more, under another name, and return what it declared on its way."""

    def load(load_library):
        names = []

        class Library:
            def __init__(self, namespace, kind):
                assert namespace == "torchvision"

            def define(self, schema):
                names.append(schema)

        monkeypatch.setattr(torch.ops, "load_library", load_library)
        monkeypatch.setattr(torch.library, "Library", Library)
        specification = importlib.util.spec_from_file_location("again", torchvision_compat.__file__)
        specification.loader.exec_module(importlib.util.module_from_spec(specification))
        return names

    return load


def test_nothing_is_declared_where_the_extension_loads(declared):
    loaded = []
    assert declared(loaded.append) == []
    assert len(loaded) == 1 and "_C" in loaded[0]


def test_operators_are_declared_where_it_does_not_load(declared):
    def fail(path):
        raise OSError("libcudart.so: cannot open shared object file")

    assert declared(fail) == list(OPERATORS)


def test_an_absent_extension_counts_as_not_loading(monkeypatch):
    monkeypatch.setattr(importlib.machinery.PathFinder, "find_spec", lambda name, path: None)
    assert not extension_loads()
