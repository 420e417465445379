"""The pictures of the book's pages that are no notebooks, drawn from committed tables.

Notebooks draw their own. The drawings `hu.svg`, `model.svg` and `parts.svg` are edited as they are, as are the tables
`results/parameters.csv` and `results/presets.csv` and `citation.bib`; tests compare what all of them say.
"""

from __future__ import annotations

from pathlib import Path

from viptt_core import files
from viptt_core.figures import Picture, kappa_by_arm
from viptt_core.figures.claim import claim_chart, interval_chart
from viptt_core.figures.study import attribution_chart
from viptt_core.study.outcomes import read_outcomes, read_table
from viptt_core.study.plan import load_study
from viptt_core.study.report import StudyResults


def draw_artwork(root: Path) -> dict[str, Picture]:
    """The pictures by path from `root`, the artifact's.

    Raises:
        DataError: a committed table is missing or damaged.
    """
    folder = root / "results" / "synthetic"
    # The table as committed: computing it again from the predictions takes minutes, and `viptt recheck` does.
    outcomes = {"attribution": read_outcomes(folder / "attribution.npz")}
    tables = {"attribution": read_table(folder / "attribution.csv")}
    return {
        "book/_static/claim.svg": claim_chart(root),
        "book/_static/intervals.svg": interval_chart(),
        "book/_static/attribution.svg": attribution_chart(StudyResults(load_study("synthetic"), outcomes, tables)),
        "book/_static/kappa.svg": kappa_by_arm(read_table(root / "results" / "02_finetune.csv"), synthetic=True),
    }


def write_artwork(root: Path) -> None:
    """Draw and write all of them below `root`.

    Raises:
        DataError: a committed table is missing or damaged.
        StorageError: a picture cannot be written.
    """
    for name, picture in draw_artwork(root).items():
        files.write_file(root / name, picture.encode("svg"))
