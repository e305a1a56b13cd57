"""The parameters of a report, checked before anything runs: `--set "ImprovedNet.rotation=15"`."""

import ast
import shlex

from helpers import config, notebook, train
from helpers.errors import BadInput

NAMES = ("profile", "seed", "device", "train_minutes", "epochs")
EXAMPLE = "--set takes settings like ImprovedNet.rotation=15 and seed=1"


def parse(text: str) -> dict:
    """Return the parameters of a text: settings of networks are in "changes".

    Raises BadInput for what is no setting, or is set twice.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise BadInput(f"{EXAMPLE}, and {text!r} has a mistake: {error}.") from None
    parameters: dict = {}
    changes: dict = {}
    for word in words:
        name, equals, value = word.partition("=")
        network, dot, setting = name.partition(".")
        if not (name and equals and value):
            raise BadInput(f"{EXAMPLE}, not {word!r}.")
        if not dot and name not in NAMES:
            known = ", ".join(NAMES)
            raise BadInput(f"unknown parameter {name!r}: choose from {known}, or Network.setting.")
        place = changes.setdefault(network, {}) if dot else parameters
        key = setting if dot else name
        if key in place:
            raise BadInput(f"{name} is set twice.")
        place[key] = _value(value)
    return parameters | ({"changes": changes} if changes else {})


def _value(text: str):
    """Return what Python reads in a text, else the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def check(parameters: dict) -> dict:
    """Return the settings that decide numbers: profile, seed, and changes with the epochs in them.

    Raises BadInput, naming the parameter, where notebook.start would.
    """
    profile = parameters["profile"]
    if profile not in config.PROFILES:
        allowed = ", ".join(config.PROFILES)
        raise BadInput(f"profile must be one of {allowed}, not {profile!r}.")
    for name in ("seed", "epochs"):
        value = parameters.get(name, 0)
        if type(value) is not int or value < 0:
            raise BadInput(f"{name} must be a whole number of at least 0, not {value!r}.")
    minutes = parameters.get("train_minutes", 0)
    if type(minutes) not in (int, float) or not minutes >= 0:  # nor NaN
        raise BadInput(f"train_minutes must be a number of at least 0, not {minutes!r}.")
    train.pick_device(parameters.get("device", "auto"))
    changes = notebook.with_epochs(parameters.get("changes", {}), parameters.get("epochs", 0))
    for network, changed in changes.items():
        config.train_config(network, profile, **changed)
    return {"profile": profile, "seed": parameters.get("seed", 0), "changes": changes}
