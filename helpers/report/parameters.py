"""The parameters of a report, checked before anything runs: `--set "ImprovedNet.rotation=15"`."""

import ast
import shlex

from helpers import config, train
from helpers.errors import BadInput

NAMES = ("profile", "seed", "device", "train_minutes")
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


def check(parameters: dict) -> None:
    """Raise BadInput, naming the parameter, where notebook.start would."""
    profile = parameters["profile"]
    if profile not in config.PROFILES:
        allowed = ", ".join(config.PROFILES)
        raise BadInput(f"profile must be one of {allowed}, not {profile!r}.")
    seed, minutes = parameters.get("seed", 0), parameters.get("train_minutes", 0)
    if type(seed) is not int or seed < 0:
        raise BadInput(f"seed must be a whole number of at least 0, not {seed!r}.")
    if type(minutes) not in (int, float) or not minutes >= 0:  # nor NaN
        raise BadInput(f"train_minutes must be a number of at least 0, not {minutes!r}.")
    train.pick_device(parameters.get("device", "auto"))
    for network, changed in parameters.get("changes", {}).items():
        config.train_config(network, profile, **changed)
