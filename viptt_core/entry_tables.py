"""What stands in an entry, as tables: models, scans, how the models agree, what each ensemble makes of them, scores."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd

from viptt_core.constants import TB_CLASSES
from viptt_core.ensembles import disagreements
from viptt_core.entry import Entry, Models, counts_of
from viptt_core.metrics import accuracy, cohen_kappa
from viptt_core.prediction.score import Labelled, match_labels
from viptt_core.results import Summary
from viptt_core.shown import ResultTable

HEAD = 5  # scans, or kinds of disagreement, that a table shows
MOST_NAMED = 10  # scans that failed, or with warnings
NO_LABELS = "The classes of these scans are not known here: nothing can be scored."


def models_table(models: Models) -> ResultTable:
    """The cards: what each model is, what a scan becomes for it, and how it did on the test part of its own data."""
    rows = []
    for name, each in zip(models.names, models.weights, strict=True):
        card, grid = each.card, each.card.preprocessing
        own = next((scores for scores in card.metrics if scores["part"] == "test"), None)
        rows.append(
            {
                "model": name,
                "about": card.about,
                "input": f"{grid.frames} slices of {grid.size} x {grid.size}, "
                f"{grid.hu_window[0]} to {grid.hu_window[1]} HU"
                f"{', box around the lungs' if grid.crop else ''}"
                if grid.kind == "scan"
                else f"{grid.kind}s",
                "kappa on its own test part": "not known"
                if own is None or own["kappa"] is None
                else f"{own['kappa']:.2f} ({own['kappa_low']:.2f} to {own['kappa_high']:.2f}), n = {own['n']}",
                "sha256": each.sha256[:12],
            }
        )
    return ResultTable(models.weights[0].card.use, pd.DataFrame(rows))


def scans_table(entry: Entry) -> ResultTable:
    """The first scans, those that could not be read, and some of those with warnings: what each model says."""
    found, votes = entry.predictions, entry.votes()
    odd = [n for n, warnings in enumerate(found.warnings) if warnings and not found.failed[n]]
    failed = np.flatnonzero(found.failed).tolist()
    chosen = sorted({*range(min(HEAD, len(found.names))), *failed[:MOST_NAMED], *odd[:HEAD]})
    rows = pd.DataFrame({"scan": [entry.scans.names[n] for n in chosen]})
    for name, numbers in zip(entry.models.names, votes, strict=True):
        rows[name] = [_named(numbers[n]) for n in chosen]
    rows["warnings"] = ["; ".join(found.warnings[n]) for n in chosen]
    rows["error"] = [found.errors[n] for n in chosen]
    text = f"{len(chosen)} of {len(found.names)} scans. {len(failed)} could not be read; {len(odd)} have warnings."
    return ResultTable("\n".join([text, *found.notes]), rows)


def agreement_table(entry: Entry) -> ResultTable:
    """How often two models say the same, and kappa between them: agreement beyond what chance would give."""
    votes = entry.votes()[:, ~entry.predictions.failed]
    if len(votes) < 2 or not votes.size:
        return ResultTable("One model, or no scan that could be read: there is nothing to compare.")
    rows = [
        {
            "models": f"{a} and {b}",
            "same class": f"{accuracy(votes[i], votes[j]):.0%}",
            "kappa between them": round(cohen_kappa(votes[i], votes[j]), 2),
        }
        for (i, a), (j, b) in combinations(enumerate(entry.models.names), 2)
    ]
    together = int((votes == votes[0]).all(axis=0).sum())
    return ResultTable(f"All {len(votes)} say the same of {together} of {votes.shape[1]} scans.", pd.DataFrame(rows))


def counts_table(entry: Entry) -> pd.DataFrame:
    """How many scans each model and each ensemble puts into each class, and how many truly are in it, if known.

    Returns:
        One row a model, ensemble ("mean", "vote" ...) or "true"; columns: who, kind ("model", "ensemble", "true"),
        then the classes.
    """
    said = [(name, "model", counts_of(votes)) for name, votes in zip(entry.models.names, entry.votes(), strict=True)]
    said += [(method, "ensemble", counts_of(entry.classes(method))) for method in entry.methods]
    if entry.scans.labels is not None:
        labels = _of_models(entry)[0].rows["label"].to_numpy()
        said.append(("true", "true", counts_of(labels + 1)))
    return pd.DataFrame(
        [{"who": who, "kind": kind} | dict(zip(TB_CLASSES, counts.tolist(), strict=True)) for who, kind, counts in said]
    )


def differences_table(entry: Entry) -> ResultTable:
    """What the models said where the ensembles differ, and what each ensemble makes of it; the most frequent first."""
    fine = ~entry.predictions.failed
    if "authors" not in entry.methods or not fine.any():
        return ResultTable("The authors' ensemble is of three models; these are compared by the others alone.")
    votes, found = entry.votes()[:, fine].T, disagreements(entry.sound)
    answers = np.stack([entry.classes(method)[fine] for method in entry.methods], axis=1)
    said = [*entry.models.names, *map(ensemble_name, entry.methods)]
    table = pd.DataFrame(np.concatenate([votes, answers], axis=1), columns=said)
    table["said by no model"] = ["yes" if none else "" for none in (votes != answers[:, [-1]]).all(axis=1)]
    table = table[(answers != answers[:, :1]).any(axis=1)]
    counted = table.groupby(list(table.columns), as_index=False).size().rename(columns={"size": "scans"})
    counted = counted.sort_values(["scans", *table.columns], ascending=[False] + [True] * len(table.columns))
    for column in said:
        counted[column] = [_named(number) for number in counted[column]]
    text = (
        f"{len(counted[: 2 * HEAD])} of {len(counted)} ways to differ. The models do not all say the same of "
        f"{found['runs_differ']} of {found['scans']} scans. Averaged class numbers are another class than the vote "
        f"for {found['not_the_vote']} scans, and one that no model said for {found['said_by_none']}."
    )
    return ResultTable(text, counted[: 2 * HEAD])


def scores(entry: Entry) -> Summary | ResultTable:
    """Kappa and accuracy of each model and each ensemble, with intervals, where the classes are known."""
    if entry.scans.labels is None:
        return ResultTable(NO_LABELS)
    matched = _of_models(entry)
    rows = matched[0].rows
    place = {name: n for n, name in enumerate(entry.predictions.names)}
    chosen = [place[name] for name in rows["name"]]
    arms = [each.rows for each in matched]
    for method in entry.methods:
        # 1 for the class that the file names, so that what is scored is what is handed in.
        certain = np.eye(len(TB_CLASSES))[entry.classes(method)[chosen] - 1]
        arms.append(rows.assign(arm=ensemble_name(method), **dict(zip(TB_CLASSES, certain.T, strict=True))))
    left = matched[0].report().replace("\n", "; ")
    summary = Summary(
        *arms,
        caveat=f"{left}. Ensembles answer with a class, which has no AUC.",
        synthetic=entry.synthetic,
        about="labelled scans",
    )
    of_ensemble = summary.table["arm"].isin([ensemble_name(method) for method in entry.methods])
    summary.table.loc[of_ensemble, ["auc", "auc_low", "auc_high"]] = np.nan
    return summary


def ensemble_name(method: str) -> str:
    """Name of an ensemble among the arms."""
    return f"ensemble: {method}"


def _of_models(entry: Entry) -> list[Labelled]:
    return [
        match_labels(entry.predictions.table(m), entry.scans.labels, arm=name)
        for m, name in enumerate(entry.models.names)
    ]


def _named(number: int) -> str:
    return f"{number} {TB_CLASSES[number - 1]}" if number else ""


def told(rows: pd.DataFrame) -> str:
    """A table of counts in words, for those who do not see its picture."""
    return "; ".join(
        f"{row['who']}: {', '.join(f'{name} {row[name]}' for name in TB_CLASSES)}" for _, row in rows.iterrows()
    )
