"""Files that appear whole or not at all, and work that one process does at a time."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from helpers.command import Problem

try:
    import fcntl
except ImportError:  # Windows has none: nothing keeps two processes apart there
    fcntl = None


class Busy(Problem):
    """Another process is doing this."""


@contextlib.contextmanager
def only_here(lock: Path, doing: str):
    """Hold a lock file, which the system frees however this process ends. Raises Busy if another process holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"another process is {doing}: wait for it to finish.") from None
        yield


@contextlib.contextmanager
def naming(path: Path):
    """Give an error of the system the path that it lacks: a full disk does not say what it had no place for."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write(path: Path, content: str | bytes) -> None:
    """Write a file beside its place and move it there: a full disk or a process that is killed leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with naming(path):
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Move a file or a folder to `target`, on the same disk, in place of what is there; it stays if the move fails."""
    old = target.with_name(f".{target.name}.old")
    try:
        if target.is_dir():
            shutil.rmtree(old, ignore_errors=True)
            os.replace(target, old)
        os.replace(source, target)
    except BaseException:
        if old.exists() and not target.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def scratch(folder: Path):
    """An empty folder to work in, gone at the end; what a killed process left there goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
