"""Errors that a user can put right, and how a command exits. Imports nothing of ours."""

import contextlib
import sys


class Problem(Exception):
    """An expected failure. Its message says in a sentence or two what is wrong and what to do."""


class BadInput(Problem, ValueError):
    """Raised for a setting or an argument that is not allowed."""


@contextlib.contextmanager
def exit_cleanly(stopped: str = "Stopped.", after: str = ""):
    """End a command without a traceback: status 1 after an expected failure, 130 after Ctrl-C.

    The message of the failure, or `stopped`, goes to stderr, and the line `after` follows it.
    """
    try:
        yield
    except (Problem, OSError) as error:
        raise SystemExit(f"{as_sentence(error)}\n{after}".rstrip()) from None
    except KeyboardInterrupt:
        print(f"\n{stopped}\n{after}".rstrip(), file=sys.stderr)
        raise SystemExit(130) from None


def as_sentence(error: Exception) -> str:
    """The message of an exception; for an error of the system, the file and the reason (a full disk)."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return str(error)
