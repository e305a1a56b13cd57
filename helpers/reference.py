"""What the reference coursework really scores.

Its two published weight files were re-evaluated once on the 10,000 test images, with the preprocessing inferred to
match them. They are not part of this repository, so these are citations, not results of a run here.
"""

import pandas as pd

SCORES = {
    "reference baseline": {
        "parameters": 48_252, "accuracy": 0.6853, "accuracy_low": 0.6761, "accuracy_high": 0.6943, "macro_f1": 0.6841,
        "nll": 0.9120, "brier": 0.4305, "ece": 0.0402, "mean_confidence": 0.7253, "wrong_above_90": 177,
        "wrong_above_99": 13,
    },
    "reference improved": {
        "parameters": 815_018, "accuracy": 0.9142, "accuracy_low": 0.9086, "accuracy_high": 0.9195, "macro_f1": 0.9142,
        "nll": 0.2876, "brier": 0.1287, "ece": 0.0392, "mean_confidence": 0.9534, "wrong_above_90": 267,
        "wrong_above_99": 77,
    },
}  # fmt: skip

ROWS = (  # key, name, factor, digits
    ("parameters", "parameters", 1, 0),
    ("accuracy", "accuracy (%)", 100, 2),
    ("macro_f1", "macro-F1", 1, 3),
    ("nll", "loss (nats)", 1, 3),
    ("brier", "Brier score", 1, 3),
    ("ece", "ECE", 1, 3),
    ("mean_confidence", "mean confidence", 1, 3),
    ("wrong_above_90", "wrong above 0.9", 1, 0),
    ("wrong_above_99", "wrong above 0.99", 1, 0),
)


def headline(summaries: dict[str, dict]) -> pd.DataFrame:
    """Scores as text, a column for each network and each reference, with [low, high] where a score has an interval."""
    columns = {name: [_cell(scores, *row) for row in ROWS] for name, scores in {**summaries, **SCORES}.items()}
    return pd.DataFrame(columns, index=pd.Index([row[1] for row in ROWS], name="on the test images"))


def _cell(scores, key, name, factor, digits):
    text = f"{factor * scores[key]:,.{digits}f}"
    if f"{key}_low" in scores:
        text += f" [{factor * scores[key + '_low']:.{digits}f}, {factor * scores[key + '_high']:.{digits}f}]"
    return text
