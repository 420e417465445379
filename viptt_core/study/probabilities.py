"""How good predicted probabilities are: calibration, Brier score, ROC and precision-recall curves."""

from __future__ import annotations

import numpy as np
import pandas as pd

BINS = 10  # of equal width, of the top probability
GRID = np.arange(101) / 100  # x of the curves; quotients, so that they meet equal quotients of counts


def calibration_bins(y_true, probabilities) -> pd.DataFrame:
    """Mean top probability and accuracy by bin of the top probability.

    Args:
        y_true: int [N], or [S, N] of several runs, which are put together.
        probabilities: float [..., N, K].

    Returns:
        A row a bin: bin (0..BINS-1; bin b holds probabilities above b/BINS up to (b+1)/BINS), confidence, accuracy
        (nan where the bin is empty), n.
    """
    top = probabilities.max(axis=-1).ravel()
    right = (probabilities.argmax(axis=-1) == y_true).ravel()
    number = np.clip(np.searchsorted(np.arange(1, BINS) / BINS, top), 0, BINS - 1)
    n, sums = np.bincount(number, minlength=BINS), [np.bincount(number, x, minlength=BINS) for x in (top, right)]
    confidence, accuracy = (np.divide(x, n, out=np.full(BINS, np.nan), where=n > 0) for x in sums)
    return pd.DataFrame({"bin": np.arange(BINS), "confidence": confidence, "accuracy": accuracy, "n": n})


def expected_calibration_error(y_true, probabilities) -> float:
    """Mean distance between confidence and accuracy over bins, weighted by their cases: 0..1.

    Args:
        y_true: int [N].
        probabilities: float [N, K].

    Source:
        Naeini, Cooper & Hauskrecht (2015), AAAI 29; Guo et al. (2017), ICML, section 2.
    """
    bins = calibration_bins(y_true, probabilities)
    return float(((bins["confidence"] - bins["accuracy"]).abs() * bins["n"]).sum() / bins["n"].sum())


def brier_score(y_true, probabilities) -> float:
    """Mean squared distance between probabilities and the true class, summed over classes: 0..2.

    Args:
        y_true: int [N].
        probabilities: float [N, K].

    Source:
        Brier (1950), Monthly Weather Review 78, 1-3.
    """
    truth = np.arange(probabilities.shape[-1]) == np.asarray(y_true)[:, None]
    return float(((probabilities - truth) ** 2).sum(axis=-1).mean())


def curves(positive, scores) -> dict[str, tuple[np.ndarray, float]]:
    """ROC and precision-recall curve of one class against the rest, on GRID.

    Args:
        positive: bool [N].
        scores: float [N].

    Returns:
        "roc": sensitivity by 1 - specificity, straight between thresholds; "pr": precision by recall, at the first
        threshold that finds as much, and anything at all; each with its area, that of "pr" being the average
        precision. nan where nothing is positive, or everything.
    """
    order = np.argsort(-scores, kind="stable")
    last = np.flatnonzero(np.diff(scores[order], append=np.nan))  # one threshold for cases of the same score
    hits = np.cumsum(positive[order])[last]
    if not 0 < hits[-1] < len(scores):
        return dict.fromkeys(("roc", "pr"), (np.full(len(GRID), np.nan), np.nan))
    recall, precision = hits / hits[-1], hits / (last + 1)
    false = (last + 1 - hits) / (len(scores) - hits[-1])
    x, y = np.append(0, false), np.append(0, recall)
    roc_area = float(np.trapezoid(y, x))
    pr_area = float((np.diff(recall, prepend=0) * precision).sum())
    reached = np.searchsorted(recall, np.maximum(GRID, 1 / hits[-1] / 2))
    return {"roc": (np.interp(GRID, x, y), roc_area), "pr": (precision[reached], pr_area)}
