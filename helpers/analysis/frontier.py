"""What each training cost, in arithmetic and in minutes, beside the accuracy that it reached."""

import re

import numpy as np
import pandas as pd

from helpers.analysis import effects
from helpers.runs import Results

# Jordan (2024), from the page of airbench: mean accuracies and FLOP. airbench94 with Muon averages
# six views of every test image, mirrored and shifted.
CITED = pd.DataFrame(
    [
        {"network": "airbench94", "accuracy": 0.9405, "pflop": 0.29},
        {"network": "ResNet-18", "accuracy": 0.96, "pflop": 32.3},
    ]
)


def quiet_minutes(history: pd.DataFrame) -> float:
    """Minutes of a training if all its epochs take as long as the fastest, since the machine had other work too."""
    return len(history) * float(history["seconds"].min()) / 60


def threads(record: dict) -> int:
    """The threads of a training on a CPU; 0 for another device."""
    found = re.search(r"(\d+) threads?\b", record["device"])
    return int(found[1]) if found else 0


def points(trainings: list[Results], labels: np.ndarray) -> pd.DataFrame:
    """One row a network and length: network, epochs, n, accuracy, accuracy_std, pflop, minutes, threads.

    The accuracy is that of the kept logits of the test images, whose classes are `labels`; of a seed
    that comes twice the first counts. minutes and threads are those of the fastest run on a CPU; NaN and 0 where all
    ran on a GPU, whose time several trainings shared.
    """
    scored = [(each.record, {"accuracy": (each.logits["test"].argmax(1) == labels).mean()}) for each in trainings]
    costs = pd.DataFrame(
        {
            "network": each.record["network"],
            "epochs": each.record["epochs"],
            "pflop": each.record["flop"] / 1e15,
            "minutes": quiet_minutes(each.history) if threads(each.record) else np.nan,
            "threads": threads(each.record),
        }
        for each in trainings
    )
    fastest = costs.sort_values("minutes", kind="stable").drop_duplicates(["network", "epochs"])
    rows = effects.over_seeds(scored, ["accuracy"]).merge(fastest, on=["network", "epochs"])
    order = list(dict.fromkeys(costs["network"]))
    return rows.sort_values("network", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def facts(rows: pd.DataFrame) -> dict:
    """What results.json says of the rows of `points`, by network and epochs; no minutes where there are none."""
    named = rows.set_index(rows["network"] + "_" + rows["epochs"].astype(str))[["n", "accuracy", "pflop", "minutes"]]
    return named.astype(object).where(named.notna(), None).to_dict("index")


def table(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of `points` as text, then the cited ones; accuracies in percent."""
    ours = {
        "network": rows["network"],
        "epochs": rows["epochs"].astype(str),
        "seeds": rows["n"].astype(str),
        "test accuracy (%)": effects.as_text(rows, "accuracy", 100, 2),
        "PFLOP": rows["pflop"].map("{:.3g}".format),
        "minutes": rows["minutes"].map("{:.1f}".format, na_action="ignore"),
        "threads": rows["threads"].map(lambda n: str(n or "–")),
    }
    cited = {
        "network": CITED["network"] + " (cited)",
        "test accuracy (%)": (100 * CITED["accuracy"]).map("{:.2f}".format),
        "PFLOP": CITED["pflop"].map("{:.3g}".format),
    }
    return pd.concat([pd.DataFrame(ours), pd.DataFrame(cited)], ignore_index=True).fillna("–")
