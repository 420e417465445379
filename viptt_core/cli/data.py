"""The commands `viptt data ...`: which data sets there are, getting one, looking into it, checking it."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from viptt_core.cli.command import add_command

CHECK_PRESET = "paper"  # 70 frames, the affine as it is: the strictest on videos
# Synthetic sets as files: which adapter reads the layout they are written in, and in which notebook.
WRITTEN_AS = {"phantom": ("imageclef", "02_finetune"), "actions": ("ucf50", "01_pretrain")}
PHANTOMS = 80  # so many that five patients have the rarest type, and every split is possible
# Settings of a data set that a check takes: the same as the notebooks.
CHECK_SETTINGS = {
    "labels": "label CSV (default: the one in the folder)",
    "file_column": "its column with the file names",
    "label_column": "its column with the labels",
    "patient_column": "its column with the patient",
    "group_pattern": "regular expression: which part of a file's name is its group",
    "groups": "CSV that names the group of each file in class folders: file, class, group",
    "classes": "folders or labels to take, separated by commas; A+B joins two; or all",
    "fold": "of ucf101: which published split, 1 to 3",
    "crop": "of imageclef: lungs, so that a scan without a mask counts as a fault",
    "masks": "of imageclef: masks1 or masks2",
    "subset": "of medmnist3d: which file of the folder",
    "pixels": "of medmnist3d: 28 or 64",
    "slice_axis": "of medmnist3d: which axis of a volume runs from slice to slice, 0 to 2",
}
NUMBERS = ("fold", "pixels", "slice_axis")
EXPECTED_WORDS = {
    "files": "clips or scans",
    "test_files": "test scans",
    "groups_per_class": "groups a class",
    "frame_size": "width and height of a frame",
    "slice_size": "width and height of a slice",
    "folds": "files of a fold (train, test)",
    "class_counts": "of each class",
    "long_clips": "with 70 frames or more, in the paper's classes",
    "short_clips": "with fewer, in these classes",
}


def add_data_commands(commands, positive: Callable[[str], int]) -> None:
    """Add `data` and its four commands to the subparsers of `viptt`; `positive` reads a number of at least 1."""
    text = "list, get, describe and check the data sets"
    data = commands.add_parser(
        "data", help=text, description=f"{text[0].upper()}{text[1:]}.", epilog="Start with: viptt data list"
    )
    actions = data.add_subparsers(title="commands", required=True, metavar="COMMAND")

    add_command(
        actions, "list", _list, "list the data sets: size, licence, access, and which are here", "viptt data list"
    )

    info = add_command(
        actions,
        "info",
        _info,
        "say all that is known of a data set, and what a folder of it holds",
        "viptt data info imageclef data/imageclef",
    )
    info.add_argument("name", help="see `viptt data list`")
    info.add_argument("root", nargs="?", type=Path, help="folder or .npz file to look into; nothing is decoded")
    info.add_argument("--json", action="store_true", help="print JSON")

    get = add_command(
        actions,
        "get",
        _get,
        "download, unpack and check a data set; say how, where that is not possible",
        "viptt data get medmnist3d --subset nodulemnist3d --preset demo",
    )
    get.add_argument("name", help="see `viptt data list`")
    get.add_argument(
        "--root",
        type=Path,
        help="folder to put it into (default: data/NAME); a synthetic set is written as files only if it is given",
    )
    get.add_argument("--subset", default="", help="of medmnist3d: which of its sets (default: nodulemnist3d)")
    get.add_argument(
        "--pixels", type=int, default=28, choices=(28, 64), help="of medmnist3d: voxels a side (default: %(default)s)"
    )
    get.add_argument("--preset", default="", help="also decode it into the cache for this preset")
    get.add_argument("--no-check", action="store_true", help="do not read every file afterwards")
    get.add_argument("--jobs", type=positive, help="worker processes (default: the available cores)")

    check = add_command(
        actions,
        "check",
        _check,
        "read every file of a data set once and report what would spoil a run; exit code 1 if anything would",
        "viptt data check folder DIR --labels DIR/labels.csv --label-column diagnosis --patient-column patient",
    )
    check.add_argument("name", help="see `viptt data list`")
    check.add_argument("root", type=Path, help="folder or .npz file")
    check.add_argument("--json", action="store_true", help="print JSON; progress goes to the error stream")
    check.add_argument(
        "--preset", default=CHECK_PRESET, help="whose frames and orientation count (default: %(default)s)"
    )
    check.add_argument("--jobs", type=positive, help="worker processes (default: the available cores)")
    check.add_argument("--reread", action="store_true", help="read files again that an earlier check has read")
    own = check.add_argument_group("settings of the data set", "The same as the notebooks take.")
    for name, text in CHECK_SETTINGS.items():
        own.add_argument(f"--{name.replace('_', '-')}", type=int if name in NUMBERS else str, help=text)


def folder_contents(root: Path) -> dict:
    """Files, bytes and files a folder below `root`; nothing is opened but ImageCLEF's label CSV.

    Raises:
        DataError: there is no such file or folder.
    """
    from viptt_core.datasets.labels import read_table
    from viptt_core.datasets.listing import existing_folder, walk_folder
    from viptt_core.datasets.scans import IMAGECLEF_COLUMNS

    if root.is_file():
        return {"root": str(root), "files": 1, "bytes": root.stat().st_size, "folders": {}, "endings": {}}
    folder = walk_folder(existing_folder(root, "the data set"))
    endings = Counter(".nii.gz" if path.name.endswith(".nii.gz") else path.suffix for path in folder.files)
    tables = [path for path in folder.with_ending([".csv"]) if path.parent == root]
    labels = Counter(row.label for table in tables for row in read_table(table, IMAGECLEF_COLUMNS).rows)
    contents = {
        "root": str(root),
        "files": len(folder.files),
        "bytes": sum(path.stat().st_size for path in folder.files),
        "folders": dict(sorted(Counter(folder.name(path.parent) for path in folder.files).items())),
        "endings": dict(sorted(endings.items())),
    }
    told = {"labels": dict(sorted(labels.items())), "faults": [str(fault) for fault in folder.faults]}
    return contents | {name: value for name, value in told.items() if value}


def _list(options) -> None:
    from viptt_core.files import format_size
    from viptt_core.sources.registry import load_registry

    rows = [("NAME", "KIND", "ACCESS", "SIZE", "HERE", "LICENCE", "WHAT")]
    for source in load_registry().values():
        here = "built in" if source.access == "built in" else "yes" if _holds_files(source.default_root) else "no"
        rows.append(
            (
                source.name,
                source.kind,
                source.access,
                format_size(source.size) or "-",
                here,
                source.licence,
                source.title,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _info(options) -> None:
    from viptt_core.files import format_size
    from viptt_core.sources.registry import data_source, medmnist_sets

    source = data_source(options.name)
    contents = folder_contents(options.root) if options.root else None
    sets = {}
    if source.name == "medmnist3d":
        sets = {
            flag: {key: entry[key] for key in ("license", "n_samples", "label")}
            for flag, entry in medmnist_sets().items()
        }
    if options.json:
        print(json.dumps(asdict(source) | {"sets": sets, "contents": contents}, indent=1))
        return
    print(f"{source.title} ({source.name})\n  {source.about}")
    lines = (
        ("page", source.page),
        ("licence", " ".join(filter(None, (source.licence, source.licence_url)))),
        ("access", source.access),
        ("size", format_size(source.size)),
        ("used for", source.role),
        ("cite", source.citation),
    )
    for what, value in lines:
        if value:
            print(f"  {what + ':':10}{value}")
    for file in source.files:
        print(f"  {'file:':10}{file.url} ({file.checksum or 'checksum recorded at the first download'})")
    for flag, entry in sets.items():
        print(
            f"  {flag}: {entry['license']}, {', '.join(f'{part} {n}' for part, n in entry['n_samples'].items())}; "
            f"{', '.join(entry['label'].values())}"
        )
    _print_block("How to get it", source.numbered_steps())
    _print_block("Layout", source.layout)
    _print_block("A complete copy holds", _expected_lines(source.expected))
    _print_block("How to use it", "\n".join(_use_lines(source, options.root)))
    _print_block("Note", "\n".join(source.notes))
    if contents:
        _print_block(f"In {options.root}", _contents_lines(contents))


def _get(options) -> int:
    from viptt_core.presets import load_preset
    from viptt_core.sources.fetch import fetch
    from viptt_core.sources.registry import data_source

    if options.preset:
        load_preset(options.preset)  # a misspelt name is worth knowing before gigabytes are fetched
    source, place = data_source(options.name), options.root
    if source.access == "built in":
        return _get_synthetic(source, options)
    if source.access == "download":
        place = fetch(source, options.root, subset=options.subset, pixels=options.pixels)
        print(f"{source.title} is in {place}.")
        root = options.root or source.default_root
        archives = [root / file.name for file in source.files if file.unpack and (root / file.name).is_file()]
        if archives:
            print(f"No longer needed: rm {' '.join(shlex.quote(str(path)) for path in archives)}")
    else:
        place = place or source.default_root
        if source.kind == "example" or not _holds_files(place):
            fetch(source, place)  # raises, and says how to get it
    return _check_and_decode(source.name, place, options, _use_lines(source, place))


def _get_synthetic(source, options) -> int:
    if options.root is None:
        print(f"{source.title} is built in: nothing to get. With --root DIR it is written as files.")
        options.no_check = True
        return _check_and_decode(source.name, None, options, _use_lines(source))
    root = _write_synthetic(source.name, options.root, options.jobs)
    name, notebook = WRITTEN_AS[source.name]
    print(f"{source.title} is in {root}.")
    use = f"papermill notebooks/{notebook}.py out.ipynb -p dataset {name} -p data_root {shlex.quote(str(root))}"
    return _check_and_decode(name, root, options, [use])


def _check_and_decode(name: str, place: Path | None, options, use: list[str]) -> int:
    """What follows when a set is there: the check, decoding for a preset, the next command to type."""
    if not options.no_check:
        report = _report(name, place, options.preset or CHECK_PRESET, n_jobs=options.jobs)
        print(report)
        if report.spoils:
            print("Mend this first; `viptt data check` looks again.", file=sys.stderr)
            return 1
    if options.preset:
        from viptt_core.datasets import load_for
        from viptt_core.presets import load_preset

        print(load_for(load_preset(options.preset), name, place, n_jobs=options.jobs).report())
    print("Next:\n  " + "\n  ".join(use))
    return 0


def _check(options) -> int:
    from viptt_core.errors import check_choice
    from viptt_core.sources.registry import load_registry

    check_choice("data set", options.name, [s.name for s in load_registry().values() if s.kind != "example"])
    settings = {key: getattr(options, key) for key in CHECK_SETTINGS if getattr(options, key) is not None}
    settings |= {"n_jobs": options.jobs, "reread": options.reread}
    report = _report(options.name, options.root, options.preset, **settings)
    print(json.dumps(report.to_dict(), indent=1) if options.json else report)
    return int(report.spoils)


def _report(name: str, root: Path, preset: str, **settings):
    """Check a folder; what else is printed goes to the error stream."""
    from viptt_core.check import check_dataset

    with contextlib.redirect_stdout(sys.stderr):
        return check_dataset(name, root, preset=preset, **settings)


def _write_synthetic(name: str, root: Path, jobs: int | None) -> Path:
    from viptt_core.files import available_cores

    if name == "phantom":
        from viptt_core.synthetic.phantom import write_imageclef

        return write_imageclef(root, PHANTOMS, seed=0, size=256, n_jobs=jobs or available_cores())
    from viptt_core.synthetic.actions import write_ucf50

    return write_ucf50(root, seed=0, clips_per_group=1, n_jobs=jobs or available_cores())


def _holds_files(root: Path) -> bool:
    return root.is_file() or (root.is_dir() and any(not path.name.startswith(".") for path in root.iterdir()))


def _use_lines(source, root: Path | None = None) -> list[str]:
    """Command lines to use the set with, in `root` or where `viptt data get` puts it."""
    if root is None and source.access == "yours":
        root = Path("DIR")
    elif root is None:
        root = source.default_data_root
        root = root.relative_to(Path.cwd()) if root.is_relative_to(Path.cwd()) else root
    return [line.replace("{root}", shlex.quote(str(root))) for line in source.use]


def _print_block(title: str, text: str) -> None:
    if text:
        print(f"\n{title}:")
        print("\n".join(f"  {line.strip() if title == 'How to get it' else line}" for line in text.split("\n")))


def _expected_lines(expected) -> str:
    lines = []
    for name, value in asdict(expected).items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {n}" for key, n in value.items())
        elif isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        if value:
            lines.append(f"{EXPECTED_WORDS.get(name, name)}: {value}")
    return "\n".join(lines)


def _contents_lines(contents: dict) -> str:
    from viptt_core.files import format_size

    lines = [f"{contents['files']} files, {format_size(contents['bytes'])}"]
    lines += [f"{count:7} {folder}/" for folder, count in contents["folders"].items()]
    lines += [f"{count:7} *{ending}" for ending, count in contents["endings"].items()]
    lines += [f"{count:7} of type {label}, by the label CSV" for label, count in contents.get("labels", {}).items()]
    lines += contents.get("faults", [])
    return "\n".join(lines)
