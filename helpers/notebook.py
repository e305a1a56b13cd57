"""The first cell of every notebook, and how a notebook hands its numbers to results.json."""

import ast
from collections.abc import Sequence

import numpy as np
from IPython.display import Markdown, display

from helpers.config import PROFILES, train_config
from helpers.train import pick_device

PUBLISHED = {"profile": "full", "seed": 0}  # and no changes

# What every notebook has in its parameters cell, and of which type.
PARAMETERS = {
    "profile": (str, "text"),
    "seed": (int, "a whole number"),
    "device": (str, "text"),
    "train_minutes": ((int, float), "a number"),
    "changes": (dict, "a dict"),
}

_settings: dict = {}  # of the notebook that runs in this process


def start(namespace: dict) -> dict:
    """Check the parameters cell and return its values, ready for runs.load_or_train(network, **settings).

    namespace: globals() of the notebook. Values may be edited by hand or injected by papermill.
    Raises ValueError, naming the parameter, if one is unknown, missing, of the wrong type or out of range.
    """
    unknown = sorted(_assigned(namespace) - set(PARAMETERS))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}: the parameters are {', '.join(PARAMETERS)}.")
    for name, (kind, in_words) in PARAMETERS.items():
        if name not in namespace:
            raise ValueError(f"the parameter {name!r} is missing from the parameters cell.")
        value = namespace[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"the parameter {name!r} must be {in_words}, not {value!r}.")
    if namespace["profile"] not in PROFILES:
        raise ValueError(f"the parameter 'profile' must be one of {', '.join(PROFILES)}, not {namespace['profile']!r}.")
    for name in ("seed", "train_minutes"):
        if not namespace[name] >= 0:
            raise ValueError(f"the parameter {name!r} must be at least 0, not {namespace[name]!r}.")
    pick_device(namespace["device"])
    for network, changed in namespace["changes"].items():
        try:
            train_config(network, namespace["profile"], **changed)
        except TypeError:  # not a dict, or its keys are not the names of hyper-parameters
            example = "{'ImprovedNet': {'epochs': 20}}"
            raise ValueError(
                f"the parameter 'changes' must look like {example}, not {namespace['changes']!r}."
            ) from None
    settings = {name: namespace[name] for name in PARAMETERS}
    _settings.update(settings)
    if text := banner(settings):
        says = f"> **{text}** The findings below were written for the published ones."
        display(Markdown(says), metadata={"banner": True})
    return settings


def differences(settings: dict) -> dict:
    """Return what decides numbers and is not as published, such as {"ImprovedNet.rotation": 15}."""
    named = {"profile": settings["profile"], "seed": settings["seed"]}
    for network, changed in settings["changes"].items():
        named |= {f"{network}.{name}": value for name, value in changed.items()}
    return {name: value for name, value in named.items() if PUBLISHED.get(name) != value}


def banner(settings: dict) -> str:
    """Return a sentence that names what is not as published, or an empty text."""
    named = [
        f"{name} = {value}" if "." in name else f"{name} {value}"
        for name, value in differences(settings).items()
    ]
    return f"Not the published numbers: {', '.join(named)}." if named else ""


def _assigned(namespace: dict) -> set[str]:
    """The names that the parameters cells assign: the notebook's own and papermill's, each as it was last run."""
    cells = (source.strip() for source in namespace.get("In", []))
    latest = {cell.splitlines()[0]: cell for cell in cells if cell.lower().startswith("# parameters")}
    nodes = (node for cell in latest.values() for node in ast.walk(ast.parse(cell)))
    return {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}


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
