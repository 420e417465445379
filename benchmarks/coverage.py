"""How often the intervals of a study hold the truth, and how often its verdicts are wrong: simulated studies.

Two designs with the sizes of the plans, each with a baseline and three arms, judged as `study.tables` does:
`cohorts`, 20 seeds with a training cohort each and one test set of 2,000; `folds`, 10 seeds x 5 folds by patient of
994 cases, whose training sets overlap.

A run is right on a case with a chance that gives its skill as kappa, else it guesses by class shares. What makes cases
hard is in part shared by all arms and runs, in part by the runs of an arm; with folds by the cases of a patient, too.
The skill of a run varies by SKILL_SD: in part by its training set, of which each case adds an effect of its own (so
that two runs that share cases have skills alike), in part by the run; half of either is shared by the arms of a seed.

    python -m benchmarks.coverage [STUDIES]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from viptt_core.study.tables import Tested, compare
from viptt_core.study.verdict import GAIN, HARMS, HELPS, NO_GAIN, decide

KAPPA, SKILL_SD = 0.35, 0.04  # of the baseline; over seeds
HARD = {"all": 0.4, "arm": 0.2, "run": 0.4}  # variance of a case's difficulty, by what shares it
ARMS = ("baseline", "one", "two", "three")
SHARES = {"cohorts": np.full(5, 0.2), "folds": np.array([54, 68, 163, 184, 525]) / 994}


@dataclass(frozen=True)
class Design:
    """Seeds, folds (0: none), test cases of all runs together, share of a skill's variance that is the training set's.

    Where there are no folds, training sets are disjoint: then their part is one of the run's.
    """

    name: str
    seeds: int
    folds: int
    n: int
    of_training_set: float = 0.5


COHORTS, FOLDS = Design("cohorts", 20, 0, 2000), Design("folds", 10, 5, 994)
STRESS = Design("folds", 10, 5, 994, of_training_set=1.0)


def draw_study(design: Design, effect: float, rng: np.random.Generator) -> list[Tested]:
    """The arms of a study; the true kappa of all but the baseline is `effect` higher."""
    shares, n, runs = SHARES[design.name], design.n, design.seeds * max(1, design.folds)
    labels = rng.choice(5, n, p=shares)
    patient = rng.integers(n * 2 // 3, size=n) if design.folds else np.arange(n)
    parts = np.stack([rng.integers(max(1, design.folds), size=n)[patient] for _ in range(design.seeds)])
    seed, fold = np.divmod(np.arange(runs), max(1, design.folds))
    tests = parts[seed] == fold[:, None]
    if design.folds:
        trains = ~tests & (parts[seed] != (fold[:, None] + 1) % design.folds)
        weights = trains / np.sqrt(trains.sum(axis=1, keepdims=True))
        n_train = int(trains.sum(axis=1).mean())
    else:
        weights, n_train = np.eye(runs), 240

    def halved(*shape: int) -> np.ndarray:
        """Normal numbers [arms, ...] of which half the variance is shared by the arms."""
        return (rng.normal(size=shape) + rng.normal(size=(len(ARMS), *shape))) / np.sqrt(2)

    skill = np.sqrt(design.of_training_set) * halved(weights.shape[1]) @ weights.T
    skill = KAPPA + SKILL_SD * (skill + np.sqrt(1 - design.of_training_set) * halved(runs))  # [arms, runs]
    skill[1:] += effect
    of_all = np.sqrt(HARD["all"]) * _by_patient(rng, patient, 1)[0]
    of_arm = np.sqrt(HARD["arm"]) * _by_patient(rng, patient, len(ARMS))
    table = pd.DataFrame({"seed": seed, "fold": fold, "n_train": n_train})
    names, classes = np.arange(n), tuple("abcde")
    arms = []
    for name, own, chances in zip(ARMS, of_arm, skill, strict=True):
        hard = of_all + own + np.sqrt(HARD["run"]) * rng.normal(size=(runs, n))  # of variance 1
        right = hard < norm.ppf(np.clip(chances, 1e-6, 1 - 1e-6))[:, None]
        named = np.where(right, labels, rng.choice(5, (runs, n), p=shares))
        probabilities = np.where(tests[..., None], np.eye(5)[named], np.nan)
        arms.append(Tested(names, patient, labels, classes, table, probabilities, True, name=name))
    return arms


def _by_patient(rng: np.random.Generator, patient: np.ndarray, rows: int) -> np.ndarray:
    """Normal numbers [rows, N], half of whose variance is shared by the cases of a patient."""
    return (rng.normal(size=(rows, len(patient))) + rng.normal(size=(rows, len(patient)))[:, patient]) / np.sqrt(2)


def measure(design: Design, effect: float, studies: int, seed: int = 0) -> dict[str, float]:
    """Coverage at both levels and the share of families of three with a wrong verdict, over simulated studies."""
    rng, held, wrong, widths = np.random.default_rng(seed), {0.95: [], 1 - 0.05 / 3: []}, [], []
    for _ in range(studies):
        baseline, *others = draw_study(design, effect, rng)
        verdicts = []
        for arm in others:
            for level, hits in held.items():
                found = compare([arm, baseline], level=level)
                hits.append(found.low <= effect <= found.high)
            verdicts.append(decide(found.low, found.high, measure="kappa", classes=5, seeds=design.seeds))
            widths.append(found.high - found.low)
        wrong.append(bool({HARMS, NO_GAIN if effect >= GAIN else HELPS} & set(verdicts)))
    coverage = {f"coverage at {level:.3f}": np.mean(hits) for level, hits in held.items()}
    row = {"design": design.name, "of training set": design.of_training_set, "effect": effect, "studies": studies}
    return row | coverage | {"wrong families": np.mean(wrong), "width": np.mean(widths)}


def main() -> None:
    """Print a row a design and effect."""
    studies = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    cells = [(design, effect) for design in (COHORTS, FOLDS, STRESS) for effect in (0.0, 0.10)]
    print(
        pd.DataFrame([measure(design, effect, studies) for design, effect in cells]).round(3).to_markdown(index=False)
    )


if __name__ == "__main__":
    main()
