"""`make verify`: run the report again, compare its numbers with the committed ones, replay trainings.

The report is made in cache/verify; reports/ stays as it is. Every number of results.json has to
come out again within the tolerance of its kind, and neither side may have one that the other lacks.
Then the first epochs of each published training are replayed, past its warm-up. That the scores
themselves are right is the subject of tests/test_independent.py.
"""

import math
from collections.abc import Iterator
from pathlib import Path

from helpers import config, data, files, runs, train
from helpers.errors import Problem, exit_cleanly
from helpers.report import __main__ as report
from helpers.report import publish

TOLERANCE = 2e-4  # relative, or absolute below 1: float32 on another processor
COUNT_TOLERANCE = 3  # images whose confidence lies on a threshold, or whose two best classes tie
SMALL_TOLERANCE = 1.5e-3  # shares of 2,000 images, and of 5,000: three and seven of them
BOOTSTRAP_TOLERANCE = 0.2  # of the width of an interval: the draws of another NumPy may differ
P_VALUE_DECADES = 3  # as far as three images move it

EXACT = ("settings", "runs", "data")  # sections of what was stored, not computed
# Sections about few images, and mean costs, to which one image adds up to ten.
SMALL = ("probe", "mistakes", "cues", "corruptions", "shifts", "rotations", "harms", "costs")
ELSEWHERE = ("device", "train_minutes")  # settings that say where to run, not what


class Disagreement(Problem):
    """Raised when a published number does not come out again."""


def compare(published: dict, computed: dict) -> list[str]:
    """Return a line for each number that differs beyond its tolerance, or that one side lacks."""
    published, computed = flat(published), flat(computed)
    problems = []
    for key in sorted(published.keys() | computed.keys()):
        name = ".".join(key)
        if key not in computed:
            problems.append(f"{name}: published, but not computed")
        elif key not in published:
            problems.append(f"{name}: computed, but not published")
        elif not agree(key, published, computed[key]):
            problems.append(f"{name}: published {published[key]}, computed {computed[key]}")
    return problems


def agree(key: tuple, published: dict, ours) -> bool:
    """Whether a computed value is the published one within the tolerance of its kind.

    key: notebook, section and further keys. published: all values, for the width of an interval.
    """
    theirs, section, name = published[key], key[1], key[-1]
    pair = (ours, theirs)
    numbers = all(isinstance(each, int | float) and not isinstance(each, bool) for each in pair)
    if not numbers or section in EXACT or name in ("n", "epochs"):
        return ours == theirs
    if name == "p_value":
        logs = [math.log10(max(value, math.ulp(0.0))) for value in pair]  # or it is 0
        return abs(logs[0] - logs[1]) < P_VALUE_DECADES
    if all(isinstance(each, int) for each in pair):
        return abs(ours - theirs) <= COUNT_TOLERANCE
    stem, _, end = name.rpartition("_")
    if end in ("low", "high") and stem != "accuracy":  # whose interval has a formula
        low, high = (published.get((*key[:-1], f"{stem}_{end}")) for end in ("low", "high"))
        if low is not None and high is not None:
            return abs(ours - theirs) <= BOOTSTRAP_TOLERANCE * (high - low)
    smallest = SMALL_TOLERANCE if section in SMALL else TOLERANCE
    return math.isclose(ours, theirs, rel_tol=TOLERANCE, abs_tol=smallest)


def flat(values, key: tuple = ()) -> dict:
    """Return the numbers and texts of nested dicts and lists by the tuple of their keys."""
    if isinstance(values, list):
        values = {str(i): value for i, value in enumerate(values)}
    if not isinstance(values, dict):
        return {} if key[1:2] == ("settings",) and key[-1] in ELSEWHERE else {key: values}
    return {k: v for name, value in values.items() for k, v in flat(value, (*key, name)).items()}


def verify(reports: Path, notebooks: Path, folder: Path) -> int:
    """Make the report again in a folder and return how many numbers of `reports` agree with it.

    Raises Disagreement naming the first ten that do not.
    """
    published = publish.read_results(reports / "results.json")
    executed = folder / "executed"
    report.run_all(notebooks, executed, folder, {"profile": "full"})
    with files.scratch(folder / ".building") as built:
        report.build(executed, built)
        files.replace(built, folder / "report")
    problems = compare(published, publish.read_results(folder / "report" / "results.json"))
    if problems:
        more = [f"... and {len(problems) - 10} more"] if len(problems) > 10 else []
        lines = [f"{len(problems)} published numbers do not verify:", *problems[:10], *more]
        raise Disagreement("\n".join([*lines, f"The report made here is in {folder}/report."]))
    return len(flat(published))


def replay_trainings() -> Iterator[str]:
    """Check weights and first epochs of the published runs; yields what was found.

    Raises CorruptRun if the weights do not give the recorded loss, or the epochs other losses.
    """
    parts, device = data.train_validation("full"), train.pick_device("cpu")
    for network in config.NETWORKS:
        run = runs.published(network)
        yield f"{network}: {runs.check_weights(run, parts[1])}"
        yield f"{network}: {runs.replay_history(run, parts, device)}"


def main() -> None:
    """Verify the committed results.json."""
    with files.locked(config.CACHE / "report.lock", "making a report here"):
        count = verify(report.REPORTS, config.ROOT / "notebooks", config.CACHE / "verify")
        print(f"All {count} numbers of reports/results.json verify.", flush=True)
        for line in replay_trainings():
            print(line, flush=True)


if __name__ == "__main__":
    with exit_cleanly():
        main()
