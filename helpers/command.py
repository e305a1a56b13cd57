"""How the commands of the project end. Imports nothing of ours."""

import contextlib
import sys


class Problem(Exception):
    """What the user can put right, said in a sentence or two."""


class BadInput(Problem, ValueError):
    """A setting that cannot be."""


@contextlib.contextmanager
def ending(stopped: str = "Stopped.", after: str = ""):
    """Turn what can be expected to go wrong into a sentence on stderr and status 1, and Ctrl-C into `stopped` and 130.

    after: a line that follows in both cases.
    """
    try:
        yield
    except (Problem, OSError) as error:
        raise SystemExit(f"{said(error)}\n{after}".rstrip()) from None
    except KeyboardInterrupt:
        print(f"\n{stopped}\n{after}".rstrip(), file=sys.stderr)
        raise SystemExit(130) from None


def said(error: Exception) -> str:
    """An exception as a sentence: of those of the system the file and the reason, such as a full disk."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}."
    return str(error)
