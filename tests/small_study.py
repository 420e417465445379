"""Small studies with results made up by hand: three starts and a factorial on phantoms; folds of real nodules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from viptt_core.constants import TB_CLASSES
from viptt_core.study.outcomes import RUN_COLUMNS, Outcomes
from viptt_core.study.plan import Study, parse_study
from viptt_core.study.report import StudyResults

PRIMARY = ("random", "image", "video")
SEEDS = 8
DATA = {"scans": {"dataset": "phantom"}, "sources": {"actions": {"dataset": "actions"}}}
FAMILIES = {  # name: measure, contrasts
    "primary": ("kappa", [("video", "image")]),
    "against random": ("kappa", [("video", "random"), ("image", "random")]),
    "rare classes": ("rare recall", [("video", "image")]),
    "label efficiency": ("kappa", [("video, 75 scans", "image, 75 scans", "video", "image")]),
}
PLAN = DATA | {
    "about": "A plan for tests",
    "preset": "demo",
    "seeds": SEEDS,
    "n_train": 300,
    "n_videos": 250,
    "rates": [0.001, 0.003],
    "factors": ["weights", "rotation"],
    "arms": [{"name": name, "experiment": "primary", "start": name} for name in PRIMARY]
    + [
        {"name": f"{start}, 75 scans", "experiment": "labels", "start": start, "n_train": 75, "seeds": 3}
        for start in ("image", "video")
    ]
    + [{"name": "video, 60 videos", "experiment": "dose", "start": "video", "n_videos": 60}],
    "families": [
        {"name": name, "question": f"{name}?", "measure": measure, "contrasts": contrasts}
        for name, (measure, contrasts) in FAMILIES.items()
    ],
}
TOO_FEW = DATA | {  # a plan that asks for little
    "about": "Only two arms",
    "preset": "demo",
    "seeds": 2,
    "arms": [{"name": name, "experiment": "one", "start": name} for name in ("random", "video")],
    "families": [{"name": "primary", "question": "Does it?", "contrasts": [("video", "random")]}],
}
NODULES = {  # real scans in folds, two sources of videos, a gate
    "about": "Nodules in folds",
    "preset": "demo",
    "scans": {"dataset": "nodules"},
    "sources": {"UT": {"dataset": "ucf50"}, "fights": {"dataset": "ucf50"}},
    "seeds": SEEDS,
    "folds": 5,
    "gate": True,
    "baselines": True,
    "arms": [
        {"name": "image", "experiment": "nodules", "start": "image"},
        {"name": "image+UT", "experiment": "nodules", "start": "video", "sources": ["UT"]},
        {"name": "image+both", "experiment": "nodules", "start": "video"},
    ],
    "families": [
        {"name": "primary", "question": "Do videos help?", "contrasts": [("image+both", "image")]},
        {
            "name": "each",
            "question": "Does one source?",
            "contrasts": [("image+UT", "image"), ("image+both", "image+UT")],
        },
    ],
}


def outcomes(arms=PRIMARY, *, n=60, seeds=SEEDS, classes=TB_CLASSES, synthetic=True) -> Outcomes:
    """Each later arm is right more often."""
    rng, k = np.random.default_rng(0), len(classes)
    labels = np.arange(n) % k
    runs, probabilities = [], []
    for number, arm in enumerate(arms):
        for seed in range(seeds):
            run = dict.fromkeys(RUN_COLUMNS, 0) | {"arm": arm, "seed": seed, "device": "cpu", "commit": "", "plan": ""}
            runs.append(run | {"learning_rate": 0.001, "n_train": n})
            scores = rng.random((n, k))
            scores[np.arange(n), labels] += 0.4 * number
            probabilities.append(scores / scores.sum(axis=1, keepdims=True))
    names = np.array([f"c{i}" for i in range(n)])
    return Outcomes(
        names, names, labels, tuple(classes), pd.DataFrame(runs), np.array(probabilities, np.float16), synthetic
    )


def contrast(family, names, difference, verdict="undecided", *, reach=0.1, measure="kappa", level=0.95) -> dict:
    """A row of the table "contrasts"."""
    names = dict(zip(("arm", "baseline", "arm2", "baseline2"), (*names, "", "")[:4], strict=True))
    row = {"family": family, "question": f"{family}?", "measure": measure} | names
    row |= {"seeds": SEEDS, "n": 60, "difference": difference, "low": difference - reach, "high": difference + reach}
    return row | {"level": level, "verdict": verdict, "has_018": abs(difference - 0.18) <= reach}


def spread(value, *names, reach=0.1):
    """A score with its interval, under each name."""
    ends = (("", 0), ("_low", -reach), ("_high", reach))
    return {f"{name}{end}": value + by for name in names for end, by in ends}


def tables(plan: Study) -> dict[str, pd.DataFrame]:
    """As `tables.make_tables` names their columns; values made up."""
    scores = spread(0.3, "kappa") | spread(0.5, "accuracy") | spread(0.2, "rare_recall")
    scores |= {"seeds": SEEDS, "n": 60, "kappa_median": 0.3, "collapsed": 1, "runs": SEEDS, "auc": 0.7, "ece": 0.1}
    scores |= {"brier": 0.6, "learning_rate": 0.001, "best_epoch": 12.0, "seed_sd": 0.02}
    interval = {"low": 0.1, "high": 0.3}
    shown = [arm.name for arm in plan.experiments()[plan.arm(plan.primary[0]).experiment]]
    classes = [{"arm": arm, "class": name} for arm in shown for name in TB_CLASSES]
    grid = np.linspace(0, 1, 101)
    trends = [("labels", start, n, 0, 0.2) for start in ("image", "video") for n in (75, 300)]
    trends += [("dose", "video" if n else "image", 300, n, 0.2) for n in (0, 60, 250)]
    baselines = ("diameter alone", "logistic regression") if plan.baselines else ()
    rows = {
        "arms": [
            {"experiment": arm.experiment, "arm": arm.name, "start": arm.start, "at_limit": int(number == 0)} | scores
            for number, arm in enumerate(plan.arms)
        ],
        "contrasts": [
            contrast(family.name, names, 0.05 + 0.2 * number, measure=family.measure)
            for number, family in enumerate(plan.families)
            for names in family.contrasts
        ],
        "attribution": [
            {"factor": name, "points": 0.2, "level": 0.9875, "percent": 100.0} | interval
            for name in (("naive gap", "start", *plan.factors) if plan.factors else ())
        ],
        "trend": [
            dict(zip(("experiment", "start", "n_train", "n_videos", "kappa"), trend, strict=True))
            | {"seeds": 3}
            | interval
            for trend in (trends if "labels" in plan.experiments() else ())
        ],
        "sources": [
            {"source": name, "arm": next(arm.name for arm in plan.arms if arm.start == "video"), "classes": 6, "n": 40}
            | {"seeds": SEEDS, "groups": 20, "accuracy": 0.6, "low": 0.5, "high": 0.7, "chance": 0.2}
            | {"size_accuracy": 0.3 if plan.folds else np.nan, "learned": True}
            for name in plan.sources
        ],
        "per_class": [row | {"support": 12, "auc": 0.8} | spread(0.5, "precision", "recall", "f1") for row in classes],
        "confusion": [
            {"arm": row["arm"], "true": row["class"], "predicted": other, "count": 28 if row["class"] == other else 5}
            for row in classes
            for other in TB_CLASSES
        ],
        "calibration": [
            {"arm": arm, "bin": b, "confidence": b / 10 + 0.05, "accuracy": b / 12, "n": 24 if b > 2 else 0}
            for arm in shown
            for b in range(10)
        ],
        "power": [
            {"question": "interval of kappa", "n": n, "kappa": 0.35, "value": 0.35, "low": 0.25, "high": 0.45}
            for n in (184, 421)
        ],
        "cost": [
            {"experiment": name, "runs": 12, "fits": 60, "hours_total": 0.5, "device": "cpu"}
            for name in (*plan.experiments(), "pretraining")
        ],
        "baselines": [{"arm": name, "n": 60, "auc": 0.7} | spread(0.4, "kappa", "accuracy") for name in baselines],
    }
    made = {name: pd.DataFrame(table) for name, table in rows.items()}
    curve = {"x": grid, "y": np.sqrt(grid), "area": 0.67}
    made["curves"] = pd.concat(
        [pd.DataFrame(row | {"curve": kind} | curve) for row in classes for kind in ("roc", "pr")]
    )
    return made


def study_results(plan: dict | None = None, **fields) -> StudyResults:
    """Results of PLAN, or of another."""
    study = parse_study("small", plan or PLAN, "small.toml")
    return StudyResults(study, **({"folder": Path("results/small"), "tables": tables(study)} | fields))


def bare_results() -> StudyResults:
    """A reader's own small plan that was not run."""
    return study_results(TOO_FEW, tables={})


def write_plan(folder, table, name="own") -> str:
    """A plan as a file: values are TOML as they are JSON, but for tables. Returns its path."""

    def value(item):
        if isinstance(item, dict):
            return "{" + ", ".join(f"{key} = {value(each)}" for key, each in item.items()) + "}"
        return json.dumps(item)

    lines = [f"{key} = {value(item)}" for key, item in table.items() if key not in ("arms", "families")]
    for many in ("arms", "families"):
        for one in table.get(many, ()):
            lines += [f"[[{many}]]", *(f"{key} = {value(item)}" for key, item in one.items())]
    path = folder / f"{name}.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return str(path)
