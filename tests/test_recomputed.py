"""Three verdicts computed again, from the committed predictions and the plans' rules, without the package."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

RESULTS = Path(__file__).resolve().parents[1] / "results"
VERDICTS = RESULTS / "verdict.json"


def load(study, arm):
    """Runs of an arm by seed and fold: (labels, groups) by name, and for each run its fields and classes by name."""
    for path in sorted((RESULTS / study).glob("*.npz")):
        if path.name.startswith(("source-", "evidence")):
            continue
        file = np.load(path)
        runs = json.loads(str(file["meta"]))["runs"]
        rows = [dict(zip(runs["columns"], row, strict=True)) for row in runs["data"]]
        mine = [i for i, row in enumerate(rows) if row["arm"] == arm]
        if mine:
            order = np.argsort(file["names"])
            mine.sort(key=lambda i: (rows[i]["seed"], rows[i]["fold"]))
            chances = file["probabilities"][mine][:, order].astype(float)
            classes = np.where(np.isnan(chances[..., 0]), -1, np.nan_to_num(chances, nan=-1).argmax(axis=-1))
            return file["labels"][order], file["groups"][order], [rows[i] for i in mine], classes
    raise AssertionError(f"no predictions of {arm}")


def kappa(labels, classes, times=None):
    """Cohen's kappa of cases that count `times`."""
    k = max(labels.max(), classes.max()) + 1
    table = np.bincount(labels * k + classes, times, k * k).reshape(k, k) / (
        len(labels) if times is None else times.sum()
    )
    expected = table.sum(axis=0) @ table.sum(axis=1)
    return (np.trace(table) - expected) / (1 - expected)


def paired(record):
    """Labels and groups [N], and of the runs that both arms have: fields, and classes [J, N] of either."""
    labels, groups, ours, one = load(record["study"], record["arm"])
    _, _, theirs, other = load(record["study"], record["baseline"])
    keys = [[(row["seed"], row["fold"]) for row in rows] for rows in (ours, theirs)]
    both = [key for key in keys[0] if key in keys[1]]
    one, other = one[[keys[0].index(key) for key in both]], other[[keys[1].index(key) for key in both]]
    assert ((one >= 0) == (other >= 0)).all()
    return labels, groups, [ours[keys[0].index(key)] for key in both], one, other


def over_folds(record):
    """Nadeau and Bengio's interval of the differences of single runs."""
    labels, _, rows, one, other = paired(record)
    tested = one >= 0
    gains = [kappa(labels[t], a[t]) - kappa(labels[t], b[t]) for t, a, b in zip(tested, one, other, strict=True)]
    j, overlap = len(gains), tested.sum(axis=1).mean() / np.mean([row["n_train"] for row in rows])
    half = stats.t.ppf((1 + record["level"]) / 2, j - 1) * np.sqrt((1 / j + overlap) * np.var(gains, ddof=1))
    return np.mean(gains), np.mean(gains) - half, np.mean(gains) + half


def two_level(record):
    """Bootstrap of test cases, groups whole, and of seeds, whose part is widened for their small number."""
    labels, groups, _, one, other = paired(record)
    gains = np.array([kappa(labels, a) - kappa(labels, b) for a, b in zip(one, other, strict=True)])
    group, n = np.unique(groups, return_inverse=True)[1], len(np.unique(groups))
    drawn = np.random.default_rng(0).integers(n, size=(2000, n))
    values, seeds = np.empty(2000), len(gains)
    for i, row in enumerate(drawn):
        times = np.bincount(row, minlength=n)[group]
        values[i] = np.mean(
            [kappa(labels, a, times) - kappa(labels, b, times) for a, b in zip(one, other, strict=True)]
        )
    tail = (1 + record["level"]) / 2
    wider = np.sqrt(seeds / (seeds - 1)) * stats.t.ppf(tail, seeds - 1) / stats.norm.ppf(tail)
    which = np.random.default_rng((0, 1)).integers(seeds, size=(2000, seeds))
    values += wider * (gains - gains.mean())[which].mean(axis=1)
    return np.mean(gains), *np.percentile(values, [100 * (1 - tail), 100 * tail])


def chosen():
    """The primary verdict of each study, then others, three in all; plain differences of kappa, none before a run."""
    records = json.loads(VERDICTS.read_text(encoding="utf-8"))["questions"] if VERDICTS.is_file() else []
    records = [record for record in records if record["measure"] == "kappa" and not record["arm2"]]
    return sorted(records, key=lambda record: not record["primary"])[:3]


@pytest.mark.parametrize("record", chosen(), ids=lambda record: f"{record['study']}: {record['arm']}")
def test_numpy_alone_gives_the_numbers_of_a_verdict(record):
    folds = len({row["fold"] for row in load(record["study"], record["arm"])[2]}) > 1
    found = over_folds(record) if folds else two_level(record)
    assert found == pytest.approx((record["difference"], record["low"], record["high"]), abs=1e-9)
