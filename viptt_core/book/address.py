"""Where the repository is. `_config.yml` says it; `write_address` puts it wherever else it must stand as text."""

from __future__ import annotations

import re
from pathlib import Path

from viptt_core import files
from viptt_core.errors import DataError, SettingError
from viptt_core.papermill_io import source_sha256

CHECKOUT = Path(__file__).resolve().parents[2]
CONFIG = "_config.yml"
HOST = "https://github.com/"
UNKNOWN_OWNER = "OWNER"  # stands for the owner as long as there is no repository
NAME = r"[\w.-]+/[\w.-]+"  # OWNER/REPOSITORY
# Files, and the text that the name of the repository follows there. `CONFIG` is the one that counts.
PLACES = {
    CONFIG: (f"\n  url: {HOST}",),
    "README.md": ("https://colab.research.google.com/github/", "https://mybinder.org/v2/gh/"),
    "CONTRIBUTING.md": (f"git clone {HOST}",),
    "CITATION.cff": (f'\nrepository-code: "{HOST}',),
    "book/_static/citation.bib": (f"url     = {{{HOST}",),
    ".zenodo.json": (f'"identifier": "{HOST}',),
    "pyproject.toml": (f'\nRepository = "{HOST}', f'\nChangelog = "{HOST}'),
    "Dockerfile": (f'org.opencontainers.image.source="{HOST}',),
    "notebooks/*.py": (f'REPOSITORY = "{HOST}',),
    "book/notebooks/*.ipynb": (f'REPOSITORY = \\"{HOST}',),
}


def read_address(root: Path | None = None) -> str:
    """Address of the repository, as `_config.yml` has it.

    Raises:
        DataError: that file is missing or has none.
    """
    file = (root or CHECKOUT) / CONFIG
    found = _names(file, PLACES[CONFIG])
    if len(found) != 1:
        raise DataError(
            "has no address of the repository.",
            path=file,
            remedy=f"It needs a line '  url: {HOST}{UNKNOWN_OWNER}/NAME' below 'repository:'.",
        )
    return HOST + found[0]


def is_placeholder(root: Path | None = None) -> bool:
    """Whether nobody has set the address yet."""
    return read_address(root).startswith(f"{HOST}{UNKNOWN_OWNER}/")


def places(root: Path | None = None) -> dict[Path, tuple[str, ...]]:
    """Every file that must carry the address, with the texts that it follows there."""
    root = root or CHECKOUT
    return {
        path: before for pattern, before in PLACES.items() for path in sorted(root.glob(pattern)) or [root / pattern]
    }


def disagreements(root: Path | None = None) -> dict[Path, str]:
    """Files that carry another address than `_config.yml`, or lack it, with what they carry instead.

    Raises:
        DataError: see `read_address`.
    """
    address, found = read_address(root), {}
    for path, texts in places(root).items():
        for before in texts:
            names = _names(path, (before,))
            if not names or any(HOST + name != address for name in names):
                found[path] = ", ".join(sorted(HOST + name for name in names)) or "none"
    return found


def write_address(url: str, root: Path | None = None) -> list[Path]:
    """Set the address everywhere. An executed notebook that fitted its source before still does.

    Args:
        url: Such as "https://github.com/someone/viptt-net".
        root: Folder of the files; None takes the checkout of this package.

    Returns:
        The files that changed.

    Raises:
        SettingError: not the address of a repository on GitHub.
        StorageError: a file cannot be written.
    """
    match = re.fullmatch(rf"{re.escape(HOST)}({NAME}?)(?:\.git)?/?", url)
    if not match:
        remedy = f"It must read {HOST}OWNER/NAME: Colab and Binder open notebooks from there."
        raise SettingError(f"'{url}' is not the address of a repository on GitHub.", remedy=remedy)
    changed, stamps = [], {}
    for path, texts in places(root).items():  # sources come before what is executed from them
        if not path.is_file():
            continue
        text = new = path.read_text(encoding="utf-8")
        for before in texts:
            new = re.sub(re.escape(before) + NAME, lambda _, before=before: before + match[1], new)
        if path.suffix == ".py":
            stamps[path.stem] = source_sha256(text), source_sha256(new)
        elif path.suffix == ".ipynb" and path.stem in stamps:
            new = new.replace(*stamps[path.stem])
        if new != text:
            files.write_file(path, new)
            changed.append(path)
    return changed


def _names(path: Path, texts: tuple[str, ...]) -> list[str]:
    """Names of repositories that follow one of some texts in a file; none where there is no file."""
    if not path.is_file():
        return []
    content = path.read_text(encoding="utf-8")
    return [name for before in texts for name in re.findall(f"{re.escape(before)}({NAME})", content)]
