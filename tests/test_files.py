"""Whole or not at all, and one at a time."""

import os
import threading
import time

import pytest

from helpers import files


def test_write(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    path = tmp_path / "new" / "file"
    files.write(path, "ä")
    files.write(path, b"second")
    assert path.read_bytes() == b"second"
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write(path, "third")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"second" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("stale", [False, True])
def test_replace_a_folder(tmp_path, stale):
    source, target = tmp_path / "source", tmp_path / "target"
    for folder, content in ((source, "new"), (target, "old")):
        folder.mkdir()
        (folder / content).touch()
    if stale:  # killed while it replaced: the target is aside
        os.replace(target, tmp_path / ".target.old")
    files.replace(source, target)
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == ["target", "target/new"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.mkdir()
    (target / "old").touch()
    with pytest.raises(FileNotFoundError):
        files.replace(tmp_path / "nowhere", target)
    assert [path.name for path in tmp_path.rglob("*")] == ["target", "old"]


def test_an_interruption_after_the_move_stays_one(tmp_path, monkeypatch):
    source, target, move = tmp_path / "source", tmp_path / "target", os.replace
    for folder, content in ((source, "new"), (target, "old")):
        folder.mkdir()
        (folder / content).touch()

    def move_and_stop(a, b):
        move(a, b)
        if a == source:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", move_and_stop)
    with pytest.raises(KeyboardInterrupt):
        files.replace(source, target)
    assert [path.name for path in target.iterdir()] == ["new"]


def test_scratch_is_empty_and_goes(tmp_path):
    folder = tmp_path / "a" / "scratch"
    folder.mkdir(parents=True)
    (folder / "left over").touch()
    with pytest.raises(KeyError), files.scratch(folder):
        assert list(folder.iterdir()) == []
        (folder / "half").touch()
        raise KeyError
    assert not folder.exists()


def test_one_at_a_time_until_it_ends_however(tmp_path, held_elsewhere):
    lock = tmp_path / "locks" / "it"
    with held_elsewhere(lock) as other:
        with pytest.raises(files.Busy, match="^another process is at it: wait for it to finish.$"):
            with files.locked(lock, "at it"):
                pass
        other.kill()
    with files.locked(lock, "at it"):
        pass


def test_waiting_for_a_lock(tmp_path, held_elsewhere, capsys):
    lock = tmp_path / "it"
    with held_elsewhere(lock) as other:
        threading.Timer(0.3, other.kill).start()
        began = time.monotonic()
        with files.locked(lock, "at it", wait=True):
            assert time.monotonic() - began > 0.2
    assert capsys.readouterr().out == "Another process is at it: waiting for it.\n"
