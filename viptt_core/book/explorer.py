"""The page "Claim explorer": every comparison of every study as HTML, and as JSON the predictions that it resamples.

All of it comes from `results/` while the book is built; `book/_static/explorer.js` hides, filters and resamples.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from docutils import nodes
from scipy import stats
from sphinx.util.docutils import SphinxDirective

from viptt_core.book.sphinx_ext import DATA, copy_data, fill_template
from viptt_core.figures import ARM_COLOURS
from viptt_core.files import artifact_root
from viptt_core.shown import ARM_WORDS, arm_label, with_interval
from viptt_core.statistics import score_tables
from viptt_core.study.ledger import studies_below
from viptt_core.study.report import NO_VERDICT, StudyResults
from viptt_core.study.tables import WEIGHTS, Tested, run_differences, shared_runs
from viptt_core.study.verdict import CONTRAST, contrast_name, read_verdicts

PAGE, PARTS = "explorer", ("changes", "contrasts", "resampling")
NOT_RUN = "not run yet"


def setup(app) -> dict[str, bool]:
    """Add the directive, and copy the files that the page links to."""
    app.add_directive("claim-explorer", ClaimExplorer)
    app.connect("html-page-context", _copy_files)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


class ClaimExplorer(SphinxDirective):
    """A part of the page, one of PARTS."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        return [nodes.raw("", part_html(self.arguments[0], artifact_root()), format="html")]


def _copy_files(app, pagename: str, templatename: str, context: dict, doctree) -> None:
    if pagename == PAGE:
        copy_data(re.findall(rf'href="{DATA}/([^"]+)"', context["body"]), Path(app.outdir))


def part_html(part: str, root: Path) -> str:
    """A part of the page, one of PARTS; `root` holds `results/`."""
    told = {"part": part, "data": DATA, "not_run": NOT_RUN, "contrasts": list_contrasts(root)}
    if part == "changes":
        told |= list_changes(root)
    if part == "resampling":
        told |= {"drawn": [one.get("resampling") for one in told["contrasts"]], "predictions": list_predictions(root)}
    return fill_template("explorer.html", told)


@cache  # for the parts of the page; a build is a process
def read_studies(root: Path) -> list[StudyResults]:
    """The studies that have results, the one of most seeds first."""
    studies = [one for one in studies_below(root).values() if one.record]
    return sorted(studies, key=lambda one: (-one.plan.seeds, one.plan.name))


@cache
def list_contrasts(root: Path) -> list[dict]:
    """A record for every planned contrast, as it is shown; with an interval, what `resampling` gives, too."""
    sentences = {_key(record["study"], record): record["sentence"] for record in read_verdicts(root)}
    found = []
    for results in read_studies(root):
        study = results.plan.name
        rows = {_key(study, row): row for row in results.rows("contrasts").to_dict("records")}
        planned = [(family, arms) for family in results.plan.families for arms in family.contrasts]
        for family, arms in planned:
            plain = dict.fromkeys(CONTRAST, "") | dict(zip(CONTRAST, arms, strict=False)) | {"family": family.name}
            one = {"study": study, "synthetic": results.synthetic, "arms": arms, "name": contrast_name(plain)}
            one |= {"question": family.question, "measure": family.measure, "verdict": NOT_RUN}
            if row := rows.get(_key(study, plain)):
                one |= {name: row[name] for name in ("seeds", "n", "level")}
                one |= {"difference": with_interval(row["difference"], row["low"], row["high"], signed=True)}
                one |= {"verdict": row["verdict"] or NO_VERDICT, "sentence": sentences.get(_key(study, plain), "")}
                if not pd.isna(row["low"]):
                    one["resampling"] = {"study": study} | resampling(row, [results.tested[name] for name in arms])
            found.append(one)
    return found


def _key(study: str, row: dict) -> tuple:
    return study, row["family"], *(row[name] for name in CONTRAST)


def resampling(row: dict, arms: list[Tested]) -> dict:
    """What `tables.compare` makes an interval of, for a row of the table of contrasts and the arms that it compares.

    For runs that all test the same cases, "runs": numbers of those that the arms share, a list an arm. Else
    "differences" of the runs, and "overlap", test over training cases. "widen": by how much the mean of runs that
    are drawn with replacement must deviate more, for few runs and for the overlap; "t", Student's quantile in it.
    """
    weights, runs = WEIGHTS[: len(arms)], shared_runs(arms)
    statistic, classes = arms[0].measured(row["measure"])
    told = {name: row[name] for name in ("difference", "low", "high", "level")}
    told |= {"weights": weights, "classes": classes, "k": len(arms[0].class_names), "arms": [one.name for one in arms]}
    n, overlap = len(runs[0]), 0.0
    if all(one.tested.all() for one in arms):
        told["runs"] = runs
    else:
        differences, overlap = run_differences(arms, runs, statistic, weights, classes)
        n = len(differences)
        told |= {"differences": differences.round(6).tolist(), "overlap": round(overlap, 6)}
    tail = (1 + row["level"]) / 2
    t = stats.t.ppf(tail, n - 1) if n > 1 else 0.0
    return told | {"t": t, "widen": t / stats.norm.ppf(tail) * np.sqrt(n * (1 / n + overlap) * n / max(1, n - 1))}


def list_predictions(root: Path) -> dict[str, dict]:
    """By study and arm: labels of the cases and predictions of each run, a digit a case; groups drawn as a whole."""
    drawn = {
        (one["study"], name)
        for one in list_contrasts(root)
        if "runs" in one.get("resampling", ())
        for name in one["arms"]
    }
    found = {}
    for results in read_studies(root):
        for name, one in results.tested.items():
            if (results.plan.name, name) in drawn:
                groups = np.unique(one.groups, return_inverse=True)[1]
                record = {"labels": _digits(one.labels), "runs": [_digits(run) for run in one.predicted]}
                record |= {"groups": groups.tolist() if len(set(groups)) < len(groups) else None}
                found.setdefault(results.plan.name, {})[name] = record
    return found


def _digits(classes: np.ndarray) -> str:
    return "".join(map(str, classes))


def list_changes(root: Path) -> dict:
    """The factorial: what can be toggled, and a record for every combination; no `cells` where no study has one."""
    results = next((one for one in read_studies(root) if one.plan.factors), None)
    if results is None:
        return {"cells": []}
    plan, cells = results.plan, []
    asked = [one | {"number": number} for number, one in enumerate(list_contrasts(root)) if one["study"] == plan.name]
    asked = [one for one in asked if set(one["arms"]) <= set(plan.factorial_arms)]
    for name in plan.factorial_arms:
        arm = plan.arm(name)
        mine = [one for one in asked if one["arms"][0] == name] or [one for one in asked if name in one["arms"]]
        cell = {"arm": name, "label": arm_label(name), "start": arm.start, "colour": ARM_COLOURS[arm.start]}
        cell |= {"asked": mine, "planned": plan.seeds_of(arm), "command": f'viptt study run {plan.name} "{name}"'}
        for row in results.rows("arms", arm=name).to_dict("records"):
            cell |= {key: row[key] for key in ("seeds", "n", "kappa", "kappa_low", "kappa_high")}
            cell |= {"scores": score_tables("kappa", results.tested[name].confusion).tolist()}
            cell |= {"shown": with_interval(row["kappa"], row["kappa_low"], row["kappa_high"])}
            cell |= {"files": results.data(f"{arm.experiment}.npz", "arms.csv", "contrasts.csv")}
        cells.append(cell)
    changes = ["pretraining on videos", *(ARM_WORDS.get(factor, factor) for factor in plan.factors)]
    ends = [value for one in cells if "shown" in one for value in (*one["scores"], one["kappa_low"], one["kappa_high"])]
    low, high = int(np.floor(10 * min(ends, default=0))), int(np.ceil(10 * max(ends, default=1)))
    ticks = [tenth / 10 for tenth in range(low, high + 1)]
    return {"cells": cells, "changes": changes, "synthetic": results.synthetic, "ticks": ticks}
