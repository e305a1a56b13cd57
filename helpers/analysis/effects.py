"""What trainings from several seeds say together: means, deviations, differences with their intervals."""

import json
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import scipy.stats

from helpers.runs import Results


def spread(rows: pd.DataFrame, scores: Sequence[str] = ("accuracy", "loss", "gap")) -> pd.DataFrame:
    """One row a key of a table of trials: title, n, and mean and deviation of each score.

    The sample deviation, with n - 1, is NaN for a group of one.
    """
    groups = rows.groupby("key", sort=False)
    chosen = groups[list(scores)]
    parts = [groups["title"].first(), groups.size().rename("n"), chosen.mean(), chosen.std().add_suffix("_std")]
    return pd.concat(parts, axis=1)


# How many times, and with how many digits, a score is shown.
FORMS = {"accuracy": (100, 2), "aurc": (1, 4), "wrong_above_90": (1, 0)}


def means_table(rows: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """Mean and deviation of scores as text, a row a key; titles: {score: title}, accuracies in percent."""
    means = spread(rows, list(titles))
    return with_scores(means[["n"]].rename(columns={"n": "seeds"}), means, titles).set_index(means["title"])


def with_scores(shown: pd.DataFrame, means: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """Columns of text beside those of `shown`: mean and deviation of each score in `means`, under its title."""
    for score, title in titles.items():
        shown = shown.assign(**{title: as_text(means, score, *FORMS.get(score, (1, 3)))})
    return shown


def against(rows: pd.DataFrame, yardstick: str, score: str) -> pd.DataFrame:
    """How the mean score of each key differs from that of the yardstick: difference, low and high, a row a key.

    Each has a 95 % interval of its own, and groups may have different deviations (Welch 1947).
    """
    groups = {key: group[score].to_numpy() for key, group in rows.groupby("key", sort=False)}
    control = groups.pop(yardstick)
    differences = {}
    for key, values in groups.items():
        interval = scipy.stats.ttest_ind(values, control, equal_var=False).confidence_interval()
        differences[key] = (values.mean() - control.mean(), interval.low, interval.high)
    return pd.DataFrame.from_dict(differences, orient="index", columns=["difference", "low", "high"]).rename_axis("key")


def against_pooled(rows: pd.DataFrame, yardstick: str, score: str) -> pd.DataFrame:
    """The same as `against` where groups have only two or three seeds: all share one deviation (Student 1908).

    It is pooled over the groups, so that the interval rests on the seeds of all of them.
    """
    groups = rows.groupby("key", sort=False)[score]
    means, n = groups.mean(), groups.size()
    freedom = int((n - 1).sum())
    deviation = (((n - 1) * groups.var()).sum() / freedom) ** 0.5
    others = means.index.drop(yardstick)
    difference = means[others] - means[yardstick]
    reach = scipy.stats.t.ppf(0.975, freedom) * deviation * (1 / n[others] + 1 / n[yardstick]) ** 0.5
    return pd.DataFrame({"difference": difference, "low": difference - reach, "high": difference + reach})


def steps(rows: pd.DataFrame, order: Sequence[str], score: str) -> pd.DataFrame:
    """The change of the mean score from each key of `order` to the next, as in against_pooled, a row a later key."""
    found = {after: against_pooled(rows, before, score).loc[after] for before, after in pairwise(order)}
    return pd.DataFrame(found).T


def verdict(change: pd.Series, better: int) -> str:
    """Whether a change with its interval is one for the better: "yes" or "no" if that excludes zero, else "open".

    better: the sign of a change for the better, 1 or -1.
    """
    low, high = sorted(better * change[["low", "high"]].astype(float))
    return "yes" if low > 0 else "no" if high < 0 else "open"


def best(change: pd.DataFrame, kind: str) -> str:
    """The key with the largest difference among those that begin with `kind`, such as one choice at several rates."""
    return change["difference"][change.index.str.startswith(kind)].idxmax()


def by_seed(trainings: list[Results]) -> pd.DataFrame:
    """What metrics.summary gave of the test images for each training, a row a seed."""
    return pd.DataFrame({each.record["seed"]: each.record["scores"]["test"] for each in trainings}).T


def beside(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Mean of each score in `first` minus that in `second`, both a row a seed, with its interval, as in `against`."""
    rows = pd.concat({"first": first, "second": second}, names=["key"]).reset_index("key")
    return pd.DataFrame({score: against(rows, "second", score).loc["first"] for score in first}).T


def off_the_line(rows: pd.DataFrame, found: pd.DataFrame, x: str, y: str) -> dict[str, float]:
    """How far the mean y of the trials `found` lies off the least-squares line of y on x through the trials `rows`.

    difference, with low and high of its 95 % interval, which is that of a prediction.
    """
    n, line = len(rows), scipy.stats.linregress(rows[x], rows[y])
    residuals = rows[y] - line.intercept - line.slope * rows[x]
    distance = (found[x].mean() - rows[x].mean()) ** 2 / ((rows[x] - rows[x].mean()) ** 2).sum()
    error = ((residuals**2).sum() / (n - 2) * (1 / len(found) + 1 / n + distance)) ** 0.5
    difference = found[y].mean() - line.intercept - line.slope * found[x].mean()
    reach = scipy.stats.t.ppf(0.975, n - 2) * error
    return {"difference": difference, "low": difference - reach, "high": difference + reach}


def beyond_chance(deviation: float, n: int) -> float:
    """By how much two single runs must differ to show more than their seeds (95 %): sqrt(2) t deviation.

    deviation: that of n seeds; t: of Student's distribution with n - 1 degrees of freedom.
    """
    return float(2**0.5 * scipy.stats.t.ppf(0.975, n - 1) * deviation)


def deviation_interval(deviation: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a deviation that n seeds gave, if scores are normally distributed."""
    low, high = scipy.stats.chi2.ppf([0.975, 0.025], n - 1)
    return deviation * ((n - 1) / low) ** 0.5, deviation * ((n - 1) / high) ** 0.5


def in_points(change: pd.DataFrame) -> pd.Series:
    """Differences of shares as text, in percentage points with their intervals: "-5.0 [-7.0, -2.9]"."""
    cells = (100 * change[["difference", "low", "high"]].astype(float)).map("{:+.1f}".format)
    return cells["difference"] + " [" + cells["low"] + ", " + cells["high"] + "]"


def mean_and_deviation(mean: float, deviation: float, factor: float = 1, digits: int = 3) -> str:
    """A mean with its deviation as text: "74.43 ± 0.46"; the mean alone where one value has no deviation."""
    text = f"{factor * mean:.{digits}f}"
    return text if np.isnan(deviation) else f"{text} ± {factor * deviation:.{digits}f}"


def as_text(means: pd.DataFrame, score: str, factor: float = 1, digits: int = 3) -> list[str]:
    """A score of every row as text: its mean with its deviation, which is in the column of the score and "_std"."""
    pairs = zip(means[score], means[f"{score}_std"], strict=True)
    return [mean_and_deviation(mean, deviation, factor, digits) for mean, deviation in pairs]


def change_table(rows: pd.DataFrame, yardstick: str, scores: dict[str, str]) -> pd.DataFrame:
    """Mean and deviation of every key in percent, and the change against the yardstick in points, as text.

    scores: {column: title}; rows of the table are titles of the trials, that of the yardstick without changes.
    """
    means = spread(rows)
    cells = {}
    for score, title in scores.items():
        cells[title] = as_text(means, score, 100, 1)
        said = in_points(against(rows, yardstick, score))
        cells[f"change of {score}"] = said.reindex(means.index, fill_value="")
    return pd.DataFrame(cells, index=means.index).set_index(means["title"])


def cue_table(rows: pd.DataFrame, keys: list[str], cues: dict[str, str]) -> pd.DataFrame:
    """Mean and deviation of the accuracy in percent under each cue, as text: a row a cue, a column a key.

    cues: {column of rows: title}; keys: of the trials to show.
    """
    groups = rows.groupby("key", sort=False)
    titles, means, deviations = groups["title"].first(), groups[list(cues)].mean(), groups[list(cues)].std()
    cells = {
        titles[key]: [
            mean_and_deviation(means.loc[key, cue], deviations.loc[key, cue], factor=100, digits=1) for cue in cues
        ]
        for key in keys
    }
    return pd.DataFrame(cells, index=pd.Index(cues.values(), name="changed"))


def over_seeds(trainings: list[tuple[dict, dict]], scores: list[str]) -> pd.DataFrame:
    """Mean and deviation of scores over trainings that differ in nothing but the seed.

    trainings: pairs of the record of a run and its scores; of a seed that comes twice the first counts. One row a kind
    of training, longer ones later: network, epochs, n, and each score with its deviation, NaN for a group of one.
    """
    rows: dict[tuple, dict] = {}
    for record, scored in trainings:
        same = json.dumps([record["network"], record["config"], record["data"]], sort_keys=True)
        row = {"same": same, "network": record["network"], "epochs": record["epochs"]}
        rows.setdefault((same, record["seed"]), row | {score: scored[score] for score in scores})
    groups = pd.DataFrame(rows.values()).groupby(["network", "epochs", "same"])[scores]
    sizes = groups.size().rename("n")
    table = pd.concat([sizes, groups.mean(), groups.std().add_suffix("_std")], axis=1)
    return table.reset_index().drop(columns="same")


def seeds_table(over: pd.DataFrame, titles: dict[str, str]) -> pd.DataFrame:
    """The rows of over_seeds as text; titles: {score: title}, accuracies in percent."""
    return with_scores(over[["network", "epochs"]].assign(seeds=over["n"]), over, titles)
