"""What the arms of a study predicted, lined up by case, and comparisons of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from viptt_core.constants import TB_RARE_CLASSES
from viptt_core.errors import SettingError
from viptt_core.statistics import Comparison, Resamples, resample, two_level_comparison
from viptt_core.study.outcomes import Outcomes
from viptt_core.study.plan import Arm, Study


@dataclass(frozen=True)
class Tested:
    """What the runs of an arm predicted on the cases that all its seeds tested, folds put together.

    Attributes:
        name: Of the arm.
        arm: As planned; None for a baseline.
        runs: A row a run, see `outcomes.RUN_COLUMNS`.
        seeds: S numbers, ascending.
        cases: N rows name, group, label, sorted by name.
        class_names: K names.
        classes, probabilities: int64 [S, N], float64 [S, N, K].
        resamples: Of the S runs; arms of the same cases share the draws.
    """

    name: str
    arm: Arm | None
    runs: pd.DataFrame
    seeds: list[int]
    cases: pd.DataFrame
    class_names: tuple[str, ...]
    classes: np.ndarray
    probabilities: np.ndarray
    resamples: Resamples | None = None

    @property
    def labels(self) -> np.ndarray:
        """Int64 [N]."""
        return self.cases["label"].to_numpy()

    @property
    def groups(self) -> np.ndarray:
        """What is resampled as a whole, [N]."""
        return self.cases["group"].to_numpy()

    @property
    def rare(self) -> list[int] | None:
        """Numbers of the rare classes; None where the classes are others than those of the paper."""
        known = set(TB_RARE_CLASSES) <= set(self.class_names)
        return [self.class_names.index(name) for name in TB_RARE_CLASSES] if known else None

    def over_seeds(self, score: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """Mean over seeds of a score of labels [N] and probabilities [N, K]."""
        return float(np.mean([score(self.labels, one) for one in self.probabilities]))

    def interval(self, column: str, statistic: str, classes=None) -> dict[str, float]:
        """Mean over seeds and its interval, as columns of a row."""
        found = two_level_comparison(statistic, self.resamples, classes=classes)
        return {column: found.estimate, f"{column}_low": found.low, f"{column}_high": found.high}


def gather(study: Study, outcomes: dict[str, Outcomes]) -> dict[str, Tested]:
    """The arms that were run, by name: those planned, in the plan's order, then others (baselines).

    Raises:
        SettingError: the seeds of an arm have no case in common.
    """
    planned = {arm.name: arm for arms in study.experiments().values() for arm in arms}
    found = {}
    for one in outcomes.values():
        cases = pd.DataFrame({"name": one.names, "group": one.groups, "label": one.labels}).sort_values("name")
        for name in one.runs["arm"].unique():
            runs, (classes, probabilities) = one.of_arm(name).runs, one.by_seed(name)
            kept = cases[(classes >= 0).all(axis=0)[cases.index]]
            if kept.empty:
                raise SettingError(f"the seeds of arm '{name}' tested no case in common.", remedy="Run it to its end.")
            found[name] = Tested(
                name,
                planned.get(name),
                runs,
                sorted(int(seed) for seed in runs["seed"].unique()),
                kept.reset_index(drop=True),
                one.class_names,
                classes[:, kept.index],
                probabilities[:, kept.index],
            )
    order = [name for name in planned if name in found] + [name for name in found if name not in planned]
    return _resampled({name: found[name] for name in order})


def compare_arms(measure: str, arms: Sequence[Tested], weights=None) -> Comparison | None:
    """A weighted sum of arms over the seeds that all of them have.

    Args:
        measure: One of plan.MEASURES.
        arms, weights: See `statistics.two_level_comparison`.

    Returns:
        Comparison; None for a measure that the classes do not have.

    Raises:
        SettingError: the arms were not tested on the same cases, or share no seed.
    """
    statistic, classes = {"kappa": ("kappa", None), "rare recall": ("recall", arms[0].rare)}[measure]
    if statistic == "recall" and classes is None:
        return None
    return two_level_comparison(statistic, *paired(arms), weights=weights, classes=classes)


def paired(arms: Sequence[Tested]) -> list[Resamples]:
    """Resamples of the seeds that all arms have.

    Raises:
        SettingError: the arms were not tested on the same cases, or share no seed.
    """
    names = ", ".join(f"'{one.name}'" for one in arms)
    if not all(one.cases.equals(arms[0].cases) and one.class_names == arms[0].class_names for one in arms):
        raise SettingError(f"arms {names} were not tested on the same cases.", remedy="Compare arms that were.")
    seeds = [seed for seed in arms[0].seeds if all(seed in one.seeds for one in arms)]
    if not seeds:
        raise SettingError(f"arms {names} share no seed.", remedy="Run them with the same seeds.")
    return [one.resamples[[one.seeds.index(seed) for seed in seeds]] for one in arms]


def _resampled(arms: dict[str, Tested]) -> dict[str, Tested]:
    """With the resamples, counted for all arms of the same cases at once."""
    found, left = dict(arms), list(arms.values())
    while left:
        alike = [one for one in left if one.cases.equals(left[0].cases) and one.class_names == left[0].class_names]
        every = resample(
            left[0].labels,
            np.concatenate([one.classes for one in alike]),
            groups=left[0].groups,
            n_classes=len(left[0].class_names),
        )
        ends = np.cumsum([len(one.seeds) for one in alike])
        for one, end in zip(alike, ends, strict=True):
            found[one.name] = replace(one, resamples=every[end - len(one.seeds) : end])
        names = {one.name for one in alike}
        left = [one for one in left if one.name not in names]
    return found
