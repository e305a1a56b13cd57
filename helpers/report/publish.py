"""What a report is besides its pages: results.json, the README table, texts of meta.yaml, files."""

import json
import math
import re
import shutil
import string
from datetime import date
from pathlib import Path

import yaml

from helpers import files, notebook
from helpers.analysis.claims import THEIR_IMPROVED
from helpers.errors import BadInput, Problem

from . import ReportError

META = Path(__file__).with_name("meta.yaml")
READY = ".ready"  # in the folder of a report: what is whole, and about to be put in its place
# The notebooks of the test scores and the facts of the runs: the pair's, and those of further networks.
EVALUATION, IMPROVED = "04_evaluation", "03_improved"


def results(notebooks):
    """Return what resolved notebooks {stem: notebook} recorded, by stem, each with its "settings".

    Floats have 6 significant digits. Raises ReportError for a record without settings.
    """
    found: dict = {}
    for stem, resolved in notebooks.items():
        for record in resolved.metadata.get("results", []):
            if record.keys() != {"settings", "numbers"}:
                raise ReportError(f"{stem} was run by another version: run it without --render-only.")
            new = {"settings": record["settings"], **record["numbers"]}
            found[stem] = merge(found.get(stem, {}), new)
    return _rounded(found)


def settings(values):
    """Return the settings that all notebooks of these results ran with.

    Raises ReportError if none has recorded any, or if two differ in what decides numbers.
    """
    if not values:
        raise ReportError("no notebook recorded a number: call notebook.record in one.")
    first, *others = values
    mine = notebook.differences(values[first]["settings"])
    for other in others:
        theirs = notebook.differences(values[other]["settings"])
        for name in sorted(mine.keys() | theirs.keys()):
            one, two = (each.get(name, "as published") for each in (mine, theirs))
            if one != two:
                raise ReportError(
                    f"{first} and {other} ran with different settings: {name} is {one} in the one "
                    f"and {two} in the other. Change it in all notebooks, or use --set."
                )
    return values[first]["settings"]


def read_results(path: Path) -> dict:
    """The values of a results.json. Raises Problem if it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict):
            raise ValueError("no object")
    except ValueError:
        raise Problem(f"{path} is damaged: restore it from git, or run `make report`.") from None
    return values


def merge(first, second):
    """Both nested dicts in a new one; where both have a value, that of `second`."""
    both = dict(first)
    for key, value in second.items():
        nested = isinstance(value, dict) and isinstance(both.get(key), dict)
        both[key] = merge(both[key], value) if nested else value
    return both


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ReportError(f"results.json cannot hold {value}: record finite numbers only.")
        return float(f"{value:.6g}")
    return value


def dump(values):
    """results.json as text."""
    return json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def texts(path):
    """The texts of a file like meta.yaml, by name. Raises ReportError if it holds anything else."""
    form = f"{path.name} must hold lines like `author: 王小明`, a text with a colon in quotes"
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ReportError(f"{form}: {' '.join(str(error).split())}.") from None
    if not isinstance(found, dict):
        raise ReportError(f"{form}.")
    return {name: "" if text is None else str(text) for name, text in found.items()}


def metadata(values, path, banner=""):
    """Return the texts of a file like meta.yaml with their {placeholders} filled from results.

    Raises ReportError naming the text and the placeholder that the results do not have.
    """
    known = {**values, "date": newest_date(values)}
    filled = {name: _fill(text, known, f"{path.name}: {name}") for name, text in texts(path).items()}
    return {**filled, "pagetitle": filled["title"], "banner": banner}


def _fill(template, values, where):
    formatter, text = string.Formatter(), ""
    for literal, name, spec, conversion in formatter.parse(template):
        text += literal
        if name is None:
            continue
        try:
            value, _ = formatter.get_field(name, (), values)
            text += formatter.format_field(formatter.convert_field(value, conversion), spec or "")
        except (KeyError, IndexError, AttributeError, TypeError, ValueError) as error:
            reason = "is not in results.json"
            if isinstance(error, ValueError):
                reason = f"does not fit ({error})"
            raise ReportError(f"{where} asks for {{{name}}}, which {reason}.") from None
    return text


def newest_date(values):
    """Return the newest date of the runs, as "22 November 2026"; empty when there is none."""
    runs = [run for stem in (EVALUATION, IMPROVED) for run in values.get(stem, {}).get("runs", {}).values()]
    dates = [run["date"][:10] for run in runs if "date" in run]
    if not dates:
        return ""
    newest = date.fromisoformat(max(dates))
    return f"{newest.day} {newest:%B %Y}"


# README

ROWS = (  # label, key, format
    ("Macro-F1", "macro_f1", "{:.3f}"),
    ("Loss (negative log-likelihood, nats)", "nll", "{:.3f}"),
    ("Brier score", "brier", "{:.3f}"),
    ("Expected calibration error", "ece", "{:.3f}"),
)


def readme_table(values):
    """The results as a Markdown table: a row for each quantity, a column for each network.

    Raises ReportError naming a quantity that the results lack.
    """
    try:
        tests, runs, seeds = (of_networks(values, kind) for kind in ("test", "runs", "seeds"))
        networks = list(tests)
        tests, runs, seeds = ([found[network] for network in networks] for found in (tests, runs, seeds))
        rows = [
            ("Test accuracy", [_interval(test, "accuracy", "{:.2%}") for test in tests]),
            *((label, [_interval(test, key, form) for test in tests]) for label, key, form in ROWS),
            ("Test accuracy over seeds", [_spread(each) for each in seeds]),
            ("Parameters", [f"{run['parameters']:,}" for run in runs]),
            ("Epochs trained", [str(run["epochs"]) for run in runs]),
            ("Training time", [duration(run["seconds"]) for run in runs]),
            ("Trained on", [run["device"] for run in runs]),
            ("Date", [run["date"][:10] for run in runs]),
        ]
    except KeyError as error:
        missing = repr(error.args[0])
        raise ReportError(f"the README table needs {missing}, which no notebook recorded.") from None
    return notebook.pipe_table(["", *networks], [[label, *cells] for label, cells in rows])


def of_networks(values, kind):
    """What the notebooks recorded of each network: its "test" scores, facts of "runs", or "seeds"."""
    return values[EVALUATION][kind] | values.get(IMPROVED, {}).get(kind, {})


def verdict(values):
    """The test accuracy of the best network beside the reference's, in a sentence; empty without scores."""
    if EVALUATION not in values:
        return ""
    tests, runs = of_networks(values, "test"), of_networks(values, "runs")
    best = max(tests, key=lambda network: tests[network]["accuracy"])
    accuracy, goal = tests[best]["accuracy"], THEIR_IMPROVED["accuracy"]
    return (
        f"{best}, trained in {duration(runs[best]['seconds'])}, classifies {accuracy:.2%} of the test images "
        f"correctly: {'past' if accuracy > goal else 'short of'} the reference's {goal:.2%}."
    )


def _interval(scores, key, form):
    if f"{key}_low" not in scores:
        return form.format(scores[key])
    low, high = form.format(scores[f"{key}_low"]), form.format(scores[f"{key}_high"])
    return f"{form.format(scores[key])} [{low}, {high}]"


def _spread(seeds):
    if seeds["n"] == 1:
        return "one seed"
    mean, deviation = (f"{100 * seeds[key]:.2f}" for key in ("accuracy", "accuracy_std"))
    return f"({mean} ± {deviation})%, {seeds['n']} seeds of {seeds['epochs']} epochs"


def duration(seconds):
    """A duration for reading: "50 s", "9 min" or "2 h 40 min"."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def fill_block(readme: str, name: str, content: str) -> str:
    """Make what lies between `<!-- name -->` and `<!-- /name -->` anew.

    Raises BadInput if a mark is missing.
    """
    block = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
    if not block.search(readme):
        raise BadInput(f"README.md has no block between <!-- {name} --> and <!-- /{name} --> to fill.")
    return block.sub(lambda match: f"{match[1]}{content}\n{match[2]}", readme, count=1)


def updated_readme(text, values):
    """README's text with its block `results` made anew."""
    return fill_block(text, "results", readme_table(values))


# Files


def put_all(built, output, readme=None):
    """Move what the folder `built` holds into `output`, fill `readme`, forget an earlier failure."""
    files.replace(built, output / READY)
    try:
        finish(output, readme)
    except KeyboardInterrupt:  # too late: a few files more, and the report is whole
        finish(output, readme)


def finish(output, readme=None):
    """Go on with a put_all that was killed between two files, so that these are of one report."""
    ready = output / READY
    if ready.is_dir():
        for path in sorted(ready.iterdir()):
            files.replace(path, output / path.name)
        if readme:
            values = read_results(output / "results.json")
            files.write(readme, updated_readme(readme.read_text(encoding="utf-8"), values))
        shutil.rmtree(ready)
        shutil.rmtree(output / "failed", ignore_errors=True)
