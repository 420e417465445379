"""A small study with results made up by hand: three starts in the primary experiment, a factorial, evidence."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd

from viptt_core.constants import TB_CLASSES
from viptt_core.study import report
from viptt_core.study.outcomes import RUN_COLUMNS, Outcomes
from viptt_core.study.plan import load_study, parse_study
from viptt_core.study.pointing import Evidence, evidence_tables
from viptt_core.study.report import StudyResults

PRIMARY = ("random", "image-unfrozen", "video-unfrozen")
SEEDS = 4
FAMILIES = {  # name: measure, contrasts
    "primary": ("kappa", [("video-unfrozen", "image-unfrozen")]),
    "against random": ("kappa", [("video-unfrozen", "random")]),
    "rare classes": ("rare recall", [("video-unfrozen", "image-unfrozen")]),
    "label efficiency": ("kappa", [("video, 75 scans", "image, 75 scans", "video-unfrozen", "image-unfrozen")]),
}
PLAN = {
    "about": "A plan for tests",
    "preset": "study",
    "seeds": 4,
    "learning_rates": [0.001, 0.003],
    "scans": {"dataset": "phantom"},
    "videos": {"dataset": "actions"},
    "factors": ["unfrozen", "rotation"],
    "primary": {"arm": "video-unfrozen", "baseline": "image-unfrozen", "width": 0.1},
    "arms": [
        {"name": name, "experiment": "primary", "start": name.partition("-")[0], "class_weights": False}
        for name in PRIMARY
    ]
    + [
        {
            "name": f"{start}, 75 scans",
            "experiment": "efficiency",
            "start": start,
            "n_train": 75,
            "seeds": 3,
            "extra_steps": start == "video",
        }
        for start in ("image", "video")
    ],
    "families": [
        {"name": name, "question": f"{name}?", "measure": measure, "contrasts": contrasts}
        for name, (measure, contrasts) in FAMILIES.items()
    ],
}
TOO_FEW = {  # a plan that asks for little
    "about": "Only two arms",
    "preset": "study",
    "seeds": 2,
    "scans": {"dataset": "phantom"},
    "videos": {"dataset": "actions"},
    "primary": {"arm": "video", "baseline": "random"},
    "arms": [{"name": name, "experiment": "one", "start": name} for name in ("random", "video")],
}

TABLES = (
    report.endings_table,
    report.cost_table,
    report.arms_table,
    report.contrasts_table,
    report.attribution_table,
    report.efficiency_table,
    report.power_table,
    report.folds_table,
    report.replication_table,
    report.per_class_table,
    report.pointing_table,
    report.verdict,
)


def outcomes(arms=PRIMARY, *, n=60, seeds=SEEDS, classes=TB_CLASSES, synthetic=True) -> Outcomes:
    """Each later arm is right more often."""
    rng, k = np.random.default_rng(0), len(classes)
    labels = np.arange(n) % k
    runs, probabilities = [], []
    for number, arm in enumerate(arms):
        for seed in range(seeds):
            run = dict.fromkeys(RUN_COLUMNS, 0) | {"arm": arm, "seed": seed, "device": "cpu", "run": "", "commit": ""}
            runs.append(run | {"plan": "", "learning_rate": 0.001, "n_train": n, "pretrain_classes": 10})
            scores = rng.random((n, k))
            scores[np.arange(n), labels] += 0.4 * number
            probabilities.append(scores / scores.sum(axis=1, keepdims=True))
    names = np.array([f"c{i}" for i in range(n)])
    return Outcomes(
        names, names, labels, tuple(classes), pd.DataFrame(runs), np.array(probabilities, np.float16), synthetic
    )


def evidence(*, n=20, steps=8, size=16, arms=("untrained", "video")) -> Evidence:
    """Findings in the slices 3 and 4 (from 0), on which the last arm's maps lie; those of the other lie anywhere."""
    rng = np.random.default_rng(1)
    labels, shown = np.arange(n) % len(TB_CLASSES), np.arange(6)
    findings = np.zeros((n, steps, size // 2, size // 2), bool)
    for i, (row, column) in enumerate(rng.integers(0, size // 2 - 1, (n, 2))):
        findings[i, 3 + i % 2, row : row + 2, column : column + 2] = True
    noise = rng.integers(1, 200, findings.shape, dtype=np.uint8)
    maps = dict.fromkeys(arms, noise) | {arms[-1]: np.where(findings, 255, noise // 4).astype(np.uint8)}
    right = {arms[0]: np.zeros(n, int), arms[-1]: np.where(np.arange(n) < 2, 0, labels)}
    return Evidence(
        names=np.array([f"p{i}" for i in range(n)]),
        labels=labels,
        class_names=TB_CLASSES,
        findings=findings,
        slice_importance={arm: maps[arm].max(axis=(2, 3)).astype(np.float16) for arm in arms},
        grad_cam=maps,
        predicted=right,
        shown=shown,
        clips=rng.integers(0, 255, (len(shown), steps, size, size), dtype=np.uint8),
        synthetic=True,
    )


def contrast(family, arm, baseline, difference, *, reach=0.1, measure="kappa", arm2="", baseline2="", p_holm=0.01):
    row = {"family": family, "question": f"{family}?", "measure": measure, "arm": arm, "baseline": baseline}
    row |= {"arm2": arm2, "baseline2": baseline2, "seeds": SEEDS, "t": 1.0, "p": p_holm, "p_holm": p_holm}
    return row | {"difference": difference, "low": difference - reach, "high": difference + reach}


def spread(value, *names, reach=0.1):
    """A score with its interval, under each name."""
    ends = (("", 0), ("_low", -reach), ("_high", reach))
    return {f"{name}{end}": value + by for name in names for end, by in ends}


def tables(plan) -> dict[str, pd.DataFrame]:
    """As `tables.make_tables` names their columns; values made up."""
    scores = spread(0.3, "kappa") | spread(0.5, "accuracy") | spread(0.2, "rare_recall")
    scores |= {"seeds": SEEDS, "n": 60, "auc": 0.7, "ece": 0.1, "brier": 0.6, "learning_rate": 0.001}
    scores |= {"best_epoch": 12.0, "seed_sd": 0.02}
    interval = {"low": 0.1, "high": 0.3}
    classes = [{"arm": arm, "class": name} for arm in PRIMARY for name in TB_CLASSES]
    grid = np.linspace(0, 1, 101)
    many = {"arm2": "video-unfrozen", "baseline2": "image-unfrozen"}
    cost = {"runs": 12, "core_seconds": 20.0, "hours_total": 0.5, "wall_hours": 0.3, "peak_memory_mb": 900.0}
    rows = {
        "arms": [
            {"experiment": arm.experiment, "arm": arm.name, "start": arm.start, "at_limit": number == 0} | scores
            for number, arm in enumerate(plan.arms)
        ],
        "contrasts": [
            contrast("primary", "video-unfrozen", "image-unfrozen", 0.05),
            contrast("against random", "video-unfrozen", "random", 0.3),
            contrast("rare classes", "video-unfrozen", "image-unfrozen", -0.3, measure="rare recall", p_holm=0.2),
            contrast("label efficiency", "video, 75 scans", "image, 75 scans", 0.12, **many),
        ],
        "attribution": [
            {"factor": name, "points": 0.2, "percent": 100.0} | interval
            for name in ("naive gap", "start", *plan.factors)
        ],
        "per_class": [row | {"support": 12} | spread(0.5, "precision", "recall", "f1") for row in classes],
        "confusion": [
            {"arm": row["arm"], "true": row["class"], "predicted": other, "count": 28 if row["class"] == other else 5}
            for row in classes
            for other in TB_CLASSES
        ],
        "calibration": [
            {"arm": arm, "bin": b, "confidence": b / 10 + 0.05, "accuracy": b / 12, "n": 24 if b > 2 else 0}
            for arm in PRIMARY
            for b in range(10)
        ],
        "efficiency": [
            {"start": start, "n_train": n, "seeds": 3, "kappa": 0.2} | interval
            for start in ("image", "video")
            for n in (75, 150, 300, 600)
        ],
        "pretraining": [
            {"videos": videos, "start": "video", "seeds": 3, "accuracy": 0.25, "classes": 10} | interval
            for videos in ("sound", "split by clip")
        ],
        "power": [
            {"question": "interval of kappa", "n": n, "kappa": 0.35, "value": 0.35, "low": 0.25, "high": 0.45}
            for n in (184, 421)
        ],
        "cost": [{"experiment": name, "device": "cpu"} | cost for name in plan.experiments()],
    }
    made = {name: pd.DataFrame(table) for name, table in rows.items()}
    curve = {"x": grid, "y": np.sqrt(grid), "area": 0.67}
    made["curves"] = pd.concat(
        [pd.DataFrame(row | {"curve": kind} | curve) for row in classes for kind in ("roc", "pr")]
    )
    return made


def study_results(**fields) -> StudyResults:
    """Results of PLAN."""
    plan = parse_study("small", PLAN, "small.toml")
    seen = evidence()
    settings = {
        "outcomes": {"primary": outcomes()},
        "evidence": seen,
        "tables": tables(plan) | {"evidence": evidence_tables(seen)},
    }
    return StudyResults(plan, **(settings | fields))


def bare_results(*, run=True) -> StudyResults:
    """Results of a reader's own small plan, of which no table but that of its arms exists; or none of all."""
    plan = parse_study("own", TOO_FEW, "own.toml")
    return StudyResults(plan, {"one": outcomes(("random", "video"), synthetic=False)} if run else {})


def nodule_results() -> StudyResults:
    """Results of the plan "lidc": real scans, baselines."""
    plan = load_study("lidc")
    made = tables(plan)
    scores = spread(0.6, "kappa", "accuracy", "auc")
    made["baselines"] = pd.DataFrame([{"arm": name, "n": 60} | scores for name in ("diameter alone", "PCA + logistic")])
    made["folds"] = pd.DataFrame(
        [{"arm": "video", "baseline": "random", "difference": 0.1, "low": 0.05, "high": 0.15, "p": 0.01}]
    )
    made["contrasts"] = pd.DataFrame([contrast("starts", "video", "random", 0.3)])
    runs = outcomes(("random", "image", "video"), classes=("benign", "malignant"), synthetic=False)
    return StudyResults(plan, {"lidc": runs}, made)


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
