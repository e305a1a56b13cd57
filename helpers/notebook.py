"""The first cell of every notebook, its findings, and how it hands its numbers to results.json."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Sequence

import numpy as np
from IPython.display import Markdown, display

from helpers.config import NETWORKS, PROFILES, train_config
from helpers.errors import Problem
from helpers.runs import Run
from helpers.train import pick_device

PUBLISHED = {"profile": "full", "seed": 0}  # and no changes

# What every notebook has in its parameters cell, and of which type.
PARAMETERS: dict[str, tuple] = {
    "profile": (str, "text"),
    "seed": (int, "a whole number"),
    "device": (str, "text"),
    "train_minutes": ((int, float), "a number"),
    "epochs": (int, "a whole number"),
    "changes": (dict, "a dict"),
}
AT_LEAST_0 = ("seed", "train_minutes", "epochs")

_settings: dict = {}  # of the notebook that runs in this process


class FalseFinding(Problem):
    """Raised when a finding of the report is not true of the published runs."""


# ---------------------------------------------------------------- parameters


def start(namespace: dict) -> dict:
    """Check the parameters and return them, ready for runs.load_or_train(network, **settings).

    namespace: globals() of the notebook, whose values may be edited by hand or injected by papermill.
    `changes` may come as text, and `epochs` is folded into it. Raises ValueError, naming the
    parameter, if one is unknown, missing, of the wrong type or out of range.
    """
    unknown = sorted(_assigned(namespace) - set(PARAMETERS))
    if unknown:
        known = ", ".join(PARAMETERS)
        raise ValueError(f"unknown parameter {unknown[0]!r}: the parameters are {known}.")
    settings = {name: _checked(name, namespace) for name in PARAMETERS}
    epochs = settings.pop("epochs")
    if settings["profile"] not in PROFILES:
        allowed = ", ".join(PROFILES)
        raise ValueError(f"the parameter 'profile' must be one of {allowed}, not {settings['profile']!r}.")
    pick_device(settings["device"])
    for network, changed in settings["changes"].items():
        try:
            train_config(network, settings["profile"], **changed)
        except TypeError:  # not a dict, or its keys are not the names of settings
            raise _bad_changes(settings["changes"]) from None
    settings["changes"] = with_epochs(settings["changes"], epochs)
    _settings.update(settings)
    if text := banner(settings):
        says = f"> **{text}** Findings that do not hold here are left out."
        display(Markdown(says), metadata={"banner": True})
    return settings


def with_epochs(changes: dict, epochs: int) -> dict:
    """The changes with a number of epochs for every network that has none of its own; 0 leaves them."""
    if not epochs:
        return changes
    every = {network: {"epochs": epochs} for network in NETWORKS}
    return every | {network: every.get(network, {}) | changed for network, changed in changes.items()}


def _checked(name: str, namespace: dict):
    """The value of a parameter in its own type."""
    if name not in namespace:
        raise ValueError(f"the parameter {name!r} is missing from the parameters cell.")
    value = namespace[name]
    if name == "changes" and isinstance(value, str):  # as papermill's -p hands it over
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise _bad_changes(value) from None
    kind, in_words = PARAMETERS[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"the parameter {name!r} must be {in_words}, not {value!r}.")
    if name in AT_LEAST_0 and not value >= 0:
        raise ValueError(f"the parameter {name!r} must be at least 0, not {value!r}.")
    return value


def _bad_changes(value) -> ValueError:
    example = "{'ImprovedNet': {'epochs': 20}}"
    return ValueError(f"the parameter 'changes' must look like {example}, not {value!r}.")


def differences(settings: dict) -> dict:
    """Return what decides numbers and is not as published, such as {"ImprovedNet.rotation": 15}."""
    named = {"profile": settings["profile"], "seed": settings["seed"]}
    for network, changed in settings["changes"].items():
        named |= {f"{network}.{name}": value for name, value in changed.items()}
    return {name: value for name, value in named.items() if PUBLISHED.get(name) != value}


def banner(settings: dict) -> str:
    """Return a sentence that names what is not as published, or an empty text."""
    named = [f"{name} = {value}" if "." in name else f"{name} {value}" for name, value in differences(settings).items()]
    return f"Not the published numbers: {', '.join(named)}." if named else ""


def _assigned(namespace: dict) -> set[str]:
    """The names that the parameters cells assign, as far as this kernel has run any.

    The notebook's own is the last one that assigns `profile`. papermill's, which holds nothing but
    values, is the last such cell after it that ran right before a call of start.
    """
    cells = [_values(source) for source in namespace.get("In", [])]
    starts = ["notebook.start(" in source for source in namespace.get("In", [])]
    own = max((i for i, (names, _) in enumerate(cells) if "profile" in names), default=None)
    if own is None:
        return set()
    injected = set()
    for i in range(own + 1, len(cells) - 1):
        names, only_values = cells[i]
        if only_values and starts[i + 1]:
            injected = names
    return cells[own][0] | injected


def _values(source: str) -> tuple[set[str], bool]:
    """The names that a cell assigns, and whether it does nothing but give values to them."""
    try:
        lines = ast.parse(source).body
    except SyntaxError:  # an earlier version of a cell that was corrected since
        return set(), False
    names, only_values = set(), bool(lines)
    for line in lines:
        targets = getattr(line, "targets", None) or [getattr(line, "target", None)]
        named = [target.id for target in targets if isinstance(target, ast.Name)]
        names.update(named)
        only_values &= len(named) == len(targets) and _is_literal(getattr(line, "value", None))
    return names, only_values


def _is_literal(node: ast.expr | None) -> bool:
    try:
        ast.literal_eval(node or "")
    except (ValueError, TypeError, SyntaxError):
        return False
    return True


# ---------------------------------------------------------------- findings


def finding(text: str, when: bool, required: bool = True) -> str:
    """A sentence that is true only under a condition: the text, or nothing if it is not true.

    With the published settings a condition that fails raises FalseFinding, since the report would
    say less than its author found; not so if not `required`, for what describes single images.
    """
    if when:
        return text
    if required and _settings and not differences(_settings):
        raise FalseFinding(f"this finding is not true of the published runs: {text}")
    return ""


def has_weights(run: Run, digest: str) -> bool:
    """Whether a run has the weights whose SHA-256 begins so: what is said of single images is said of one network."""
    return run.record["files"]["weights.safetensors"].startswith(digest)


def paragraph(*sentences: str) -> None:
    """Show sentences as one paragraph; findings that are not true here are empty and left out."""
    if text := _joined(sentences):
        display(Markdown(text))


def findings(*points: str | Sequence[str]) -> None:
    """Show points as one bullet list. A point is a sentence or several of them, empty ones left out."""
    texts = [_joined([point] if isinstance(point, str) else point) for point in points]
    display(Markdown("\n".join(f"- {text}" for text in texts if text)))


def listing(*parts: str) -> None:
    """Show pieces of Python code as one listing, with a blank line between them."""
    display(Markdown("```python\n" + "\n\n".join(parts) + "\n```"))


def code(part: Callable, first: str = "", last: str = "") -> str:
    """The source of a function or class without docstrings, or its lines from `first` to `last`, texts in these lines.

    Raises ValueError if there are no such lines.
    """
    lines = re.sub(r' *""".*?"""\n+', "", inspect.getsource(part), flags=re.S).splitlines()
    starts = [i for i, line in enumerate(lines) if first in line]
    ends = [i for i, line in enumerate(lines) if last in line and starts and i >= starts[0]]
    if not ends:
        raise ValueError(f"{part.__name__} has no lines from {first!r} to {last!r}.")
    return textwrap.dedent("\n".join(lines[starts[0] : ends[0] + 1 if last else None]))


def _joined(sentences: Sequence[str]) -> str:
    return " ".join(sentence for sentence in sentences if sentence)


# ---------------------------------------------------------------- numbers and tables


def record(**numbers) -> None:
    """Hand numbers to results.json, with the settings that the notebook runs with.

    Several calls in one notebook add up. Raises ValueError before notebook.start, for a number that
    is not finite, since JSON has no such number, and for a value of no JSON type.
    """
    if not _settings:
        raise ValueError("notebook.record needs the settings: run the cell with notebook.start first.")
    content = {"settings": _plain(_settings), "numbers": _plain(numbers)}
    shown = {"application/json": content, "text/plain": "recorded for results.json"}
    display(shown, metadata={"results": True}, raw=True)


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"cannot record {value}: results.json holds finite numbers only.")
    if not isinstance(value, str | int | float | None):
        raise ValueError(f"cannot record {value!r}: results.json holds numbers, texts, lists and dicts only.")
    return value


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A table of cells that are Markdown already; numbers: all columns but the first align to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in (head, rule, *rows))
