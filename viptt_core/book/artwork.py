"""The pictures of the book's pages that are no notebooks, drawn from committed tables.

Notebooks draw their own. The drawings `hu.svg`, `model.svg` and `parts.svg` are edited as they are, as are the tables
`results/parameters.csv` and `results/presets.csv` and `citation.bib`; tests compare what all of them say.
"""

from __future__ import annotations

import re
from pathlib import Path

from viptt_core import files
from viptt_core.figures import Picture, kappa_by_arm
from viptt_core.figures.claim import claim_chart, interval_chart
from viptt_core.study.outcomes import read_table

WIDE = ".wide.svg"  # how the name of the form for wide windows ends: the book shows it where it fits


def draw_artwork(root: Path) -> dict[str, Picture]:
    """The pictures by path from `root`, the artifact's; a DataError where a table is missing or damaged."""
    return {
        "book/_static/claim.svg": claim_chart(root),
        "book/_static/intervals.svg": interval_chart(),
        "book/_static/kappa.svg": kappa_by_arm(read_table(root / "results" / "02_finetune.csv"), synthetic=True),
    }


def write_artwork(root: Path) -> None:
    """Draw and write all of them below `root`, and put their text alternatives into the pages that show them.

    A DataError as of `draw_artwork`; a StorageError where a picture or page cannot be written.
    """
    for name, picture in draw_artwork(root).items():
        files.write_file(root / name, picture.encode("svg"))
        if picture.wide:
            files.write_file((root / name).with_suffix(WIDE), picture.encode("svg", wide=True))
        shown = re.compile(rf'(\{{figure\}} {name.removeprefix("book/")}\n(?::.*\n)*?:alt: )".*"')
        for page in (root / "book").glob("*.md"):
            text = page.read_text(encoding="utf-8")
            changed = shown.sub(lambda found, alt=picture.alt: f'{found[1]}"{alt}"', text)
            if changed != text:
                files.write_file(page, changed)
