"""The first cell of every notebook, and how a notebook hands its numbers to results.json."""

import ast

import numpy as np
from IPython.display import Markdown, display

from helpers.config import PROFILES, train_config
from helpers.train import pick_device

# What every notebook has in its parameters cell, and of which type.
PARAMETERS = {"profile": str, "seed": int, "device": str, "train_minutes": (int, float), "changes": dict}


def start(namespace: dict) -> dict:
    """Check the parameters cell and return its values, ready for runs.load_or_train(network, **settings).

    namespace: globals() of the notebook. Values may be edited by hand or injected by papermill.
    Raises ValueError, naming the parameter, if one is unknown, missing, of the wrong type or out of range.
    """
    unknown = sorted(_assigned(namespace) - set(PARAMETERS))
    if unknown:
        raise ValueError(f"unknown parameter {unknown[0]!r}: the parameters are {', '.join(PARAMETERS)}.")
    for name, kind in PARAMETERS.items():
        if name not in namespace:
            raise ValueError(f"the parameter {name!r} is missing from the parameters cell.")
        value = namespace[name]
        if not isinstance(value, kind) or isinstance(value, bool):
            wanted = "number" if isinstance(kind, tuple) else {"str": "text"}.get(kind.__name__, kind.__name__)
            raise ValueError(f"the parameter {name!r} must be a {wanted}, not {value!r}.")
    if namespace["profile"] not in PROFILES:
        raise ValueError(f"the parameter 'profile' must be one of {', '.join(PROFILES)}, not {namespace['profile']!r}.")
    for name in ("seed", "train_minutes"):
        if not namespace[name] >= 0:
            raise ValueError(f"the parameter {name!r} must be at least 0, not {namespace[name]!r}.")
    pick_device(namespace["device"])
    for network, changed in namespace["changes"].items():
        if not isinstance(changed, dict):
            example = "{'ImprovedNet': {'epochs': 20}}"
            raise ValueError(f"the parameter 'changes' must look like {example}, not {namespace['changes']!r}.")
        train_config(network, namespace["profile"], **changed)
    settings = {name: namespace[name] for name in PARAMETERS}
    if settings["profile"] != "full" or settings["changes"] or settings["seed"]:
        display(Markdown("> **Not the published numbers.** These parameters differ from the published run, "
                         "and the findings below were written for that run."))  # fmt: skip
    return settings


def _assigned(namespace: dict) -> set[str]:
    """The names that the parameters cells assign: the cells that begin with "# Parameters"."""
    names = set()
    for source in namespace.get("In", []):
        if source.lstrip().lower().startswith("# parameters"):
            for node in ast.walk(ast.parse(source)):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
    return names


def record(**numbers) -> None:
    """Show numbers as JSON and mark them for results.json. Keys of nested dicts are merged across notebooks.

    Raises ValueError if a number is not finite, since JSON has no such number.
    """
    display({"application/json": _plain(numbers), "text/plain": "recorded for results.json"},
            metadata={"results": True}, raw=True)  # fmt: skip


def _plain(value):
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        raise ValueError(f"cannot record {value}: results.json holds finite numbers only.")
    return value
