"""Write files atomically, and hold locks."""

import contextlib
import hashlib
import os
import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.errors import Problem


class Busy(Problem):
    """Raised when another process holds the lock."""


@contextlib.contextmanager
def locked(lock: Path, doing: str, wait: bool = False):
    """Hold a lock file, which the system frees however this process ends.

    While another process holds it: wait, saying so in a line, or raise Busy. doing: what the lock
    protects, for the message ("training X").
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(blocking=False)
    except Timeout:
        if not wait:
            raise Busy(f"another process is {doing}: wait for it to finish.") from None
        print(f"Another process is {doing}: waiting for it.", flush=True)
        held.acquire()
    try:
        yield
    finally:
        held.release()


@contextlib.contextmanager
def with_path(path: Path):
    """Add the path to an error of the system that lacks one: a full disk does not name the file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def write(path: Path, content: str | bytes) -> None:
    """Write a file atomically: a full disk or a killed process leaves the old one as it was."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with with_path(path):
            partial.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def replace(source: Path, target: Path) -> None:
    """Move a file or folder to `target` on the same disk. What was there stays if the move fails."""
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
    """Make an empty folder to work in and remove it at the end."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_digest(path: Path) -> str:
    """The SHA-256 of a file, 64 hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
