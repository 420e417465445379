"""Several models' probabilities -> one class a scan: by their mean, by a vote, and as the authors did it."""

from __future__ import annotations

import numpy as np

from viptt_core.errors import SettingError, check_choice

ENSEMBLES = ("mean", "vote", "authors")
AUTHORS_WEIGHTS = (0.6, 0.2, 0.2)  # of their three runs, in the order of the runs [C]


def check_ensemble(method: str, n_models: int) -> None:
    """Raise a SettingError unless the method exists and takes so many models."""
    check_choice("ensemble", method, ENSEMBLES)
    if method == "authors" and n_models != len(AUTHORS_WEIGHTS):
        what = f"the ensemble 'authors' is of three runs, and {n_models} were given."
        raise SettingError(what, remedy="Give three, in the order of their weights, or take 'mean' or 'vote'.")


def combine(probabilities, method: str) -> np.ndarray:
    """One class a scan out of the probabilities of several models.

    "mean" takes the class of the largest mean probability, the lower one on a tie. "vote" takes the class that
    most models find most probable; on a tie, of the tied classes the one with the larger mean probability.

    "authors" is round(0.6 a + 0.2 b + 0.2 c) over the class NUMBERS of three runs, as the authors handed in. It is
    wrong for classes without an order: where one run says Infiltrative (1) and two say Tuberculoma (3), 1.8 becomes
    2, Focal, which no run said and which is no finding between the two. It stands here only to repeat the authors.

    Args:
        probabilities: float [M, N, K] of M models, 0..1; N and M at least 1, K at least 2.
        method: One of ENSEMBLES.

    Returns:
        int64 [N], class numbers 1..K.

    Raises:
        SettingError: another shape or method, no probabilities (of a failed scan), or not three models for "authors".
    """
    values = _checked(probabilities)
    check_ensemble(method, len(values))
    if method == "authors":
        # Ten times the sum is even, so it never lies half way between two classes, and rounding needs no rule.
        return np.rint(np.tensordot(AUTHORS_WEIGHTS, _answers(values), axes=1)).astype(np.int64)
    mean = np.sort(values, axis=0).mean(axis=0)  # sorted, so that the order of the models decides no tie by rounding
    if method == "vote":
        votes = (_answers(values)[..., None] == np.arange(1, values.shape[2] + 1)).sum(axis=0)
        mean = np.where(votes == votes.max(axis=1, keepdims=True), mean, -1.0)
    return mean.argmax(axis=1).astype(np.int64) + 1


def disagreements(probabilities) -> dict[str, int]:
    """What averaging class numbers did to the scans, compared with a vote of the same three runs.

    Args:
        probabilities: float [3, N, K], as for `combine`, which raises the same errors.

    Returns:
        "scans" (N), "runs_differ" (scans on which the runs do not all say the same), "not_the_vote" (the authors'
        average is another class than the vote's) and "said_by_none" (it is a class that no run said).
    """
    averaged, voted = combine(probabilities, "authors"), combine(probabilities, "vote")
    said = _answers(_checked(probabilities))
    found = {
        "runs_differ": (said != said[0]).any(axis=0),
        "not_the_vote": averaged != voted,
        "said_by_none": (said != averaged).all(axis=0),
    }
    return {"scans": len(averaged)} | {name: int(scans.sum()) for name, scans in found.items()}


def _answers(values: np.ndarray) -> np.ndarray:
    """Class numbers 1..K of each model, int64 [M, N]; the lower one on a tie."""
    return values.argmax(axis=2).astype(np.int64) + 1


def _checked(probabilities) -> np.ndarray:
    values = np.asarray(probabilities, dtype=np.float64)
    if values.ndim != 3 or 0 in values.shape[:2] or values.shape[2] < 2:
        remedy = "Give [models, scans, classes], at least one model, one scan and two classes."
        raise SettingError(f"probabilities have shape {values.shape}.", remedy=remedy)
    bad = ~np.isfinite(values).all(axis=(0, 2))
    if bad.any():
        what = f"{bad.sum()} of {len(bad)} scans have no probabilities; scan {bad.argmax() + 1} is the first."
        raise SettingError(what, remedy="Leave failed scans out before models are combined.")
    if values.min() < 0 or np.abs(values.sum(axis=2) - 1).max() > 1e-3:
        raise SettingError(
            "values are no probabilities: a scan's classes do not add up to 1.",
            remedy="Give what softmax returns, not logits.",
        )
    return values
