"""Agreement between true and predicted classes: kappa, accuracy, ROC area, per class, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from viptt_core.errors import SettingError


def confusion_matrix(y_true, y_pred, n_classes: int | None = None) -> np.ndarray:
    """Counts of (true, predicted) pairs.

    Args:
        y_true, y_pred: int [N], classes 0..K-1.
        n_classes: K; None takes the largest class seen, plus one.

    Returns:
        int64 [K, K], rows true, columns predicted.

    Raises:
        SettingError: the two differ in length, are empty, or hold a class outside 0..K-1.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape or y_true.ndim != 1 or not len(y_true):
        raise SettingError(
            f"labels have shape {y_true.shape}, predictions {y_pred.shape}.",
            remedy="Give two one-dimensional arrays of the same length, at least 1.",
        )
    lowest, highest = min(y_true.min(), y_pred.min()), max(y_true.max(), y_pred.max())
    k = int(highest) + 1 if n_classes is None else n_classes
    if lowest < 0 or highest >= k:
        raise SettingError(f"classes run from {lowest} to {highest}.", remedy=f"Use 0 to {k - 1}.")
    pairs = y_true.astype(np.int64) * k + y_pred.astype(np.int64)
    return np.bincount(pairs, minlength=k * k).reshape(k, k)


def cohen_kappa(y_true, y_pred) -> float:
    """Unweighted Cohen's kappa: agreement beyond what the two marginals give by chance.

    Args:
        y_true, y_pred: int [N].

    Returns:
        1 for agreement throughout, 0 for chance; nan where kappa is undefined (both hold one and
        the same class only), as in scikit-learn.

    Source:
        Cohen (1960), Educational and Psychological Measurement 20, 37-46.
    """
    table = confusion_matrix(y_true, y_pred)
    n = table.sum()
    observed = np.trace(table) / n
    expected = float(table.sum(axis=1) @ table.sum(axis=0)) / n**2
    return float((observed - expected) / (1 - expected)) if expected < 1 else float("nan")


def accuracy(y_true, y_pred) -> float:
    """Share of predictions that are right, 0..1."""
    table = confusion_matrix(y_true, y_pred)
    return float(np.trace(table) / table.sum())


def roc_auc(y_true, probabilities) -> float:
    """Area under the ROC curve, averaged over the classes, each against the rest; ties count half.

    Args:
        y_true: int [N], classes 0..K-1.
        probabilities: float [N, K], or any scores that rank the cases of a class alike.

    Returns:
        0..1, 0.5 for chance; with two classes that of the second. nan where a class has no case, or all.

    Raises:
        SettingError: shapes that do not fit.

    Source:
        Hanley & McNeil (1982), Radiology 143, 29-36: the Mann-Whitney statistic.
    """
    y_true, scores = np.asarray(y_true), np.asarray(probabilities)
    if scores.ndim != 2 or y_true.shape != scores.shape[:1] or not len(y_true) or scores.shape[1] < 2:
        what = f"labels have shape {y_true.shape}, probabilities {scores.shape}."
        raise SettingError(what, remedy="Give [N] and [N, K].")
    positive = y_true[:, None] == np.arange(scores.shape[1])
    if scores.shape[1] == 2:
        positive, scores = positive[:, 1:], scores[:, 1:]
    n_positive = positive.sum(axis=0)
    n_pairs = n_positive * (len(y_true) - n_positive)
    if not n_pairs.all():
        return float("nan")
    above = (rankdata(scores, axis=0) * positive).sum(axis=0) - n_positive * (n_positive + 1) / 2
    return float((above / n_pairs).mean())


def per_class(y_true, y_pred, n_classes: int) -> dict[str, np.ndarray]:
    """Precision, recall, F1 and support of each class.

    Returns:
        "precision", "recall", "f1" (float [K]; 0 where the denominator is 0, as in scikit-learn)
        and "support" (int [K], true cases).
    """
    table = confusion_matrix(y_true, y_pred, n_classes)
    hits, predicted, support = np.diag(table), table.sum(axis=0), table.sum(axis=1)

    def share(numerator, denominator):
        return np.divide(numerator, denominator, out=np.zeros(n_classes), where=denominator > 0)

    return {
        "precision": share(hits, predicted),
        "recall": share(hits, support),
        "f1": share(2.0 * hits, predicted + support),
        "support": support,
    }


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
    """Percentile bootstrap interval of a statistic of true and predicted classes.

    Args:
        statistic: (y_true, y_pred) -> float; resamples where it is nan are left out.
        y_true, y_pred: arrays whose first axis is the N cases.
        n_resamples: Number of resamples drawn with replacement.
        level: Coverage, between 0 and 1.
        seed: Of the resampling.
        groups: [N] or None; when given, whole groups (patients) are drawn instead of cases, because
            cases of one group are not independent.

    Returns:
        (low, high); (nan, nan) when the statistic is nan in every resample.

    Raises:
        SettingError: level or n_resamples out of range, or lengths that differ.

    Source:
        Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapter 13.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if not 0 < level < 1:
        raise SettingError(f"level is {level}.", remedy="Give a number between 0 and 1, such as 0.95.")
    if n_resamples < 1:
        raise SettingError(f"n_resamples is {n_resamples}.", remedy="Give at least 1; 2000 is usual.")
    n = len(y_true)
    units = np.arange(n) if groups is None else np.asarray(groups)
    if len(y_pred) != n or len(units) != n or not n:
        raise SettingError(
            f"{n} labels, {len(y_pred)} predictions, {len(units)} groups.", remedy="Give the same number of each."
        )
    _, unit_of_case = np.unique(units, return_inverse=True)
    cases_of_unit = np.split(np.argsort(unit_of_case, kind="stable"), np.cumsum(np.bincount(unit_of_case))[:-1])
    rng = np.random.default_rng(seed)
    values = np.empty(n_resamples)
    for i in range(n_resamples):
        drawn = rng.integers(len(cases_of_unit), size=len(cases_of_unit))
        cases = np.concatenate([cases_of_unit[unit] for unit in drawn]) if groups is not None else drawn
        values[i] = statistic(y_true[cases], y_pred[cases])
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
