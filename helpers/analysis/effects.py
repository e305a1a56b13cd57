"""What trainings from several seeds say together: means, deviations, differences with their intervals."""

import numpy as np
import pandas as pd
import scipy.stats


def spread(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a key of a table of trials: title, n, and mean and deviation of accuracy, loss and gap.

    The sample deviation, with n - 1, is NaN for a group of one.
    """
    groups = rows.groupby("key", sort=False)
    scores = groups[["accuracy", "loss", "gap"]]
    parts = [groups["title"].first(), groups.size().rename("n"), scores.mean(), scores.std().add_suffix("_std")]
    return pd.concat(parts, axis=1)


def against(rows: pd.DataFrame, yardstick: str, score: str) -> pd.DataFrame:
    """How the mean score of each key differs from that of the yardstick: difference, low and high, a row a key.

    The 95 % intervals hold for all keys together (Dunnett 1955), supposing one deviation for all of them.
    """
    groups = {key: group[score].to_numpy() for key, group in rows.groupby("key", sort=False)}
    control = groups.pop(yardstick)
    test = scipy.stats.dunnett(*groups.values(), control=control, rng=np.random.default_rng(0))
    interval = test.confidence_interval()
    differences = [values.mean() - control.mean() for values in groups.values()]
    return pd.DataFrame(
        {"difference": differences, "low": interval.low, "high": interval.high},
        index=pd.Index(list(groups), name="key"),
    )


def in_points(change: pd.DataFrame) -> pd.Series:
    """Differences of shares as text, in percentage points with their intervals: "-5.0 [-7.0, -2.9]"."""
    cells = (100 * change[["difference", "low", "high"]].astype(float)).map("{:+.1f}".format)
    return cells["difference"] + " [" + cells["low"] + ", " + cells["high"] + "]"


def mean_and_deviation(mean: float, deviation: float, factor: float = 1, digits: int = 3) -> str:
    """A mean with its deviation as text: "74.43 ± 0.46"; the mean alone where one value has no deviation."""
    text = f"{factor * mean:.{digits}f}"
    return text if np.isnan(deviation) else f"{text} ± {factor * deviation:.{digits}f}"
