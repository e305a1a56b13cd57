"""Labels that may be wrong, by confident learning."""

import warnings

import numpy as np
import pandas as pd

with warnings.catch_warnings():  # cleanlab asks for a widget library that nothing here needs
    warnings.filterwarnings("ignore", message="IProgress not found")
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

CONFIRMED_ERRORS = 54  # of the 10,000 test labels, by people whom Northcutt et al. (2021) asked


def suspects(probabilities: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Images whose label may be wrong, most suspicious first (confident learning, Northcutt et al. 2021).

    probabilities: (n, K), from a network that did not train on these images: one that did has learnt their wrong labels
    too. labels: (n,) integers. The index is the image; the columns are given (its label), suggested (the most probable
    class) and quality: the probability of the given label (self-confidence), 0..1, lowest first.

    An image is suspected if the network prefers another class to its label, and gives some other class j at least the
    probability of j that images labelled j have on average. An error of the network looks like one of the label here: a
    person has to look at the images.
    Raises ValueError for arrays that do not fit together or are no probabilities.
    """
    probabilities, labels = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or labels.dtype.kind not in "iu":
        raise ValueError(
            "Probabilities must be (images, classes) and labels one integer an image, "
            f"not {probabilities.shape} and {labels.dtype} of shape {labels.shape}."
        )
    if not ((probabilities >= 0).all() and np.allclose(probabilities.sum(1), 1, rtol=0, atol=1e-4)):  # nor NaN
        raise ValueError("Probabilities must be at least 0 and sum to 1 for every image; logits need a softmax first.")
    if len(np.unique(labels)) < 2 or labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"Labels must be of at least two classes and lie in 0..{probabilities.shape[1] - 1}.")
    labels = labels.astype(np.int64)
    # The filter whose verdict on an image can be checked by hand. One job: it takes milliseconds.
    index = find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    quality = get_label_quality_scores(labels, probabilities, method="self_confidence")
    table = {"given": labels[index], "suggested": probabilities[index].argmax(1), "quality": quality[index]}
    return pd.DataFrame(table, pd.Index(index, name="image"))
