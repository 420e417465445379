"""Agreement between true and predicted classes: confusion tables, kappa, scores by class, ROC area, bootstrap."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from viptt_core.errors import require


def confusion_matrix(y_true, y_pred, n_classes: int | None = None) -> np.ndarray:
    """Counts of (true, predicted) pairs, both int [N], classes 0..K-1: int64 [K, K], rows true, columns predicted.

    `n_classes` is K; None takes the largest class seen, plus one. A SettingError where the two differ in length, are
    empty, or hold a class outside 0..K-1.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    found = f"labels have shape {y_true.shape}, predictions {y_pred.shape}."
    fits = y_true.shape == y_pred.shape and y_true.ndim == 1 and len(y_true)
    require(fits, found, "Give two one-dimensional arrays of the same length, at least 1.")
    lowest, highest = min(y_true.min(), y_pred.min()), max(y_true.max(), y_pred.max())
    k = int(highest) + 1 if n_classes is None else n_classes
    require(lowest >= 0 and highest < k, f"classes run from {lowest} to {highest}.", f"Use 0 to {k - 1}.")
    pairs = y_true.astype(np.int64) * k + y_pred.astype(np.int64)
    return np.bincount(pairs, minlength=k * k).reshape(k, k)


# --- Scores of many confusion tables at once --------------------------------------------------------------------------


def _ratio(numerator, denominator) -> np.ndarray:
    """Quotients; nan where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(np.shape(numerator), np.nan), where=denominator != 0)


def kappa_of_tables(tables) -> np.ndarray:
    """Unweighted Cohen's kappa of confusion tables [..., K, K]: float [...], nan where it is undefined."""
    n = tables.sum(axis=(-2, -1))
    chance = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1)
    # Multiplied by n * n throughout: counts stay whole, so that "undefined" is an exact zero.
    return _ratio(n * np.trace(tables, axis1=-2, axis2=-1) - chance, n * n - chance)


# Tables [..., K, K] -> float [...].
SCORES = {
    "kappa": kappa_of_tables,
    "accuracy": lambda tables: np.trace(tables, axis1=-2, axis2=-1) / tables.sum(axis=(-2, -1)),
}
# Tables [..., K, K] -> float [..., K]; nan for a class without cases.
CLASS_SCORES = {
    "recall": lambda tables: _ratio(np.diagonal(tables, 0, -2, -1), tables.sum(axis=-1)),
    # 0 for a class that is never predicted: a run that gives it up must not drop out of a mean.
    "precision": lambda tables: np.nan_to_num(_ratio(np.diagonal(tables, 0, -2, -1), tables.sum(axis=-2))),
    "f1": lambda tables: _ratio(2 * np.diagonal(tables, 0, -2, -1), tables.sum(axis=-1) + tables.sum(axis=-2)),
}


# --- Scores of labels and predictions ---------------------------------------------------------------------------------


def cohen_kappa(y_true, y_pred) -> float:
    """Unweighted Cohen's kappa of true and predicted classes, both int [N]: agreement beyond chance.

    1 for agreement throughout, 0 for what the two marginals give by chance; nan where both hold one and the same class
    only, as in scikit-learn. Source: Cohen (1960), Educational and Psychological Measurement 20, 37-46.
    """
    return float(kappa_of_tables(confusion_matrix(y_true, y_pred)))


def accuracy(y_true, y_pred) -> float:
    """Share of predictions that are right, 0..1."""
    return float(SCORES["accuracy"](confusion_matrix(y_true, y_pred)))


def roc_auc(y_true, probabilities) -> float:
    """Area under the ROC curve, averaged over the classes, each against the rest; ties count half.

    0..1, 0.5 for chance; with two classes that of the second. nan where a class has no case, or all. Labels are int
    [N], 0..K-1; probabilities float [N, K], or any scores that rank the cases of a class alike; else a SettingError.
    Source: Hanley & McNeil (1982), Radiology 143, 29-36: the Mann-Whitney statistic.
    """
    y_true, scores = np.asarray(y_true), np.asarray(probabilities)
    fits = scores.ndim == 2 and y_true.shape == scores.shape[:1] and len(y_true) and scores.shape[1] > 1
    require(fits, f"labels have shape {y_true.shape}, probabilities {scores.shape}.", "Give [N] and [N, K].")
    positive = y_true[:, None] == np.arange(scores.shape[1])
    if scores.shape[1] == 2:
        positive, scores = positive[:, 1:], scores[:, 1:]
    n_positive = positive.sum(axis=0)
    n_pairs = n_positive * (len(y_true) - n_positive)
    if not n_pairs.all():
        return float("nan")
    above = (rankdata(scores, axis=0) * positive).sum(axis=0) - n_positive * (n_positive + 1) / 2
    return float((above / n_pairs).mean())


# --- Bootstrap --------------------------------------------------------------------------------------------------------


def check_level(level: float) -> None:
    """Raise a SettingError for a coverage that is none."""
    require(0 < level < 1, f"level is {level}.", "Give a number between 0 and 1, such as 0.95.")


def percentile_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Bounds (low, high) with a share `level` of the values, float [R], between them, and as many below as above.

    nan values do not count; (nan, nan) where all are.
    """
    check_level(level)
    values = values[~np.isnan(values)]
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)]) if len(values) else [np.nan] * 2
    return float(low), float(high)


def bootstrap_ci(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    y_true,
    y_pred,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    groups=None,
) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of a statistic of true and predicted classes.

    Source: Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.

    Args:
        statistic: (y_true, y_pred) -> float; resamples where it is nan are left out; both ends are nan if all are.
        y_true: Array whose first axis is the N cases.
        y_pred: Array whose first axis is the N cases.
        n_resamples: Number of resamples drawn with replacement.
        level: Coverage, between 0 and 1.
        seed: Of the resampling.
        groups: [N] or None; when given, whole groups (patients) are drawn instead of cases.

    Raises:
        SettingError: level or n_resamples out of range, or lengths that differ.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    n = len(y_true)
    units = np.arange(n) if groups is None else np.asarray(groups)
    require(n_resamples >= 1, f"n_resamples is {n_resamples}.", "Give at least 1; 2000 is usual.")
    found = f"{n} labels, {len(y_pred)} predictions, {len(units)} groups."
    require(n and len(y_pred) == n and len(units) == n, found, "Give the same number of each.")
    unit_of_case = np.unique(units, return_inverse=True)[1]
    cases_of_unit = np.split(np.argsort(unit_of_case, kind="stable"), np.cumsum(np.bincount(unit_of_case))[:-1])
    rng = np.random.default_rng(seed)
    values = np.empty(n_resamples)
    for i in range(n_resamples):
        drawn = rng.integers(len(cases_of_unit), size=len(cases_of_unit))
        cases = np.concatenate([cases_of_unit[unit] for unit in drawn]) if groups is not None else drawn
        values[i] = statistic(y_true[cases], y_pred[cases])
    return percentile_interval(values, level)


# --- How good predicted probabilities are -----------------------------------------------------------------------------
BINS = 10  # of equal width, of the top probability
GRID = np.arange(101) / 100  # x of the curves; quotients, so that they meet equal quotients of counts


def calibration_bins(y_true, probabilities) -> dict[str, np.ndarray]:
    """Mean top probability and accuracy by bin of the top probability, float [..., N, K]; of labels int [..., N].

    By name, a value a bin: bin (0..BINS-1; bin b holds probabilities above b/BINS up to (b+1)/BINS), confidence,
    accuracy (both nan where the bin is empty), n. Several runs [S, N] are put together.
    """
    top = probabilities.max(axis=-1).ravel()
    right = (probabilities.argmax(axis=-1) == y_true).ravel()
    number = np.clip(np.searchsorted(np.arange(1, BINS) / BINS, top), 0, BINS - 1)
    n, sums = np.bincount(number, minlength=BINS), [np.bincount(number, x, minlength=BINS) for x in (top, right)]
    confidence, accuracy = (_ratio(x, n) for x in sums)
    return {"bin": np.arange(BINS), "confidence": confidence, "accuracy": accuracy, "n": n}


def expected_calibration_error(y_true, probabilities) -> float:
    """Mean distance between confidence and accuracy over bins, weighted by their cases: Guo et al. (2017), ICML."""
    bins = calibration_bins(y_true, probabilities)
    return float(np.nansum(np.abs(bins["confidence"] - bins["accuracy"]) * bins["n"]) / bins["n"].sum())


def brier_score(y_true, probabilities) -> float:
    """Mean squared distance between probabilities [N, K] and the true class, summed over classes: 0..2."""
    truth = np.arange(probabilities.shape[-1]) == np.asarray(y_true)[:, None]
    return float(((probabilities - truth) ** 2).sum(axis=-1).mean())


def curves(positive, scores) -> dict[str, tuple[np.ndarray, float]]:
    """ROC and precision-recall curve of one class (bool [N]) against the rest by its scores (float [N]), on GRID.

    "roc": sensitivity by 1 - specificity, straight between thresholds; "pr": precision by recall, at the first
    threshold that finds as much, and anything at all; each with its area, that of "pr" being the average precision.
    nan where nothing is positive, or everything.
    """
    if positive.all() or not positive.any():
        return dict.fromkeys(("roc", "pr"), (np.full(len(GRID), np.nan), np.nan))
    from sklearn import metrics  # slow to import

    false, hits, _ = metrics.roc_curve(positive, scores)
    precision, recall, _ = metrics.precision_recall_curve(positive, scores)
    reached = np.searchsorted(recall[::-1], np.maximum(GRID, 1 / len(scores) / 2))
    return {
        "roc": (np.interp(GRID, false, hits), float(metrics.auc(false, hits))),
        "pr": (precision[::-1][reached], float(metrics.average_precision_score(positive, scores))),
    }
