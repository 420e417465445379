"""The commands `viptt data ...`, and those that write synthetic sets as files."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path

from viptt_core.cli.command import add_command, add_group, path, positive

CHECK_PRESET = "paper"  # 70 frames, the affine as it is: the strictest on videos
JOBS = "worker processes (default: the available cores)"
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


def add_data_commands(commands) -> None:
    """Add `data` and its commands, `phantom` and `actions` to the subparsers of `viptt`."""
    data = add_group(commands, "data", "list, get and check the data sets")

    text = "list the data sets and which are here, or say all that is known of one"
    shown = add_command(data, "list", _list, text, "viptt data list imageclef")
    shown.add_argument("name", nargs="?", help="one set: how to get it, its layout, how to use and cite it")

    text = "download, unpack and check a data set; say how, where that is not possible"
    get = add_command(data, "get", _get, text, "viptt data get medmnist3d --subset nodulemnist3d")
    get.add_argument("name", help="see `viptt data list`")
    get.add_argument("--root", type=path, help="folder to put it into (default: data/NAME)")
    get.add_argument("--subset", default="", help="of medmnist3d: which of its sets (default: nodulemnist3d)")
    get.add_argument("--pixels", type=int, default=28, choices=(28, 64), help="of medmnist3d (default: %(default)s)")
    get.add_argument("--no-check", action="store_true", help="do not read every file afterwards")
    get.add_argument("--jobs", type=positive, help=JOBS)

    check = add_command(
        data,
        "check",
        _check,
        "read every file of a data set once and report what would spoil a run; exit code 1 if anything would",
        "viptt data check folder DIR --labels DIR/labels.csv --label-column diagnosis --patient-column patient",
    )
    check.add_argument("name", help="see `viptt data list`")
    check.add_argument("root", type=path, help="folder or .npz file")
    check.add_argument("--json", action="store_true", help="print JSON; progress goes to the error stream")
    check.add_argument("--preset", default=CHECK_PRESET, help="whose grid counts (default: %(default)s)")
    check.add_argument("--jobs", type=positive, help=JOBS)
    own = check.add_argument_group("settings of the data set", "The same as the notebooks take.")
    for name, text in CHECK_SETTINGS.items():
        own.add_argument(f"--{name.replace('_', '-')}", type=int if name in NUMBERS else str, help=text)

    text = "write synthetic CT scans in the layout of ImageCLEF, or in one's own: scans and a label CSV"
    phantom = add_command(commands, "phantom", _phantom, text, "viptt phantom data/phantom -n 20")
    phantom.add_argument("-n", type=positive, default=20, help="number of scans (default: %(default)s)")
    phantom.add_argument("--patients", type=positive, help="number of patients, for a layout of one's own")
    phantom.add_argument("--size", type=positive, default=512, help="voxels in-plane (default: %(default)s)")
    phantom.add_argument("--slices", type=positive, help="slices a scan (default: by the patient's slice thickness)")

    text = "write synthetic activity videos as a UCF50 folder"
    actions = add_command(commands, "actions", _actions, text, "viptt actions data/actions --groups 3")
    actions.add_argument("--groups", type=positive, default=25, help="groups a class (default: %(default)s)")
    actions.add_argument("--clips", type=positive, default=4, help="clips a group (default: %(default)s)")

    for command in (phantom, actions):
        command.add_argument("folder", type=path, help="folder to write; an interrupted call is taken up again")
        command.add_argument("--seed", type=int, default=0, help="of the generator (default: %(default)s)")
        command.add_argument("--jobs", type=positive, help=JOBS)


def _list(options) -> None:
    from viptt_core.files import format_size
    from viptt_core.sources.registry import load_registry

    if options.name:
        _describe(options.name)
        return
    rows = [("NAME", "KIND", "ACCESS", "SIZE", "HERE", "LICENCE", "WHAT")]
    for source in load_registry().values():
        here = "built in" if source.access == "built in" else "yes" if _holds_files(source.default_root) else "no"
        size = format_size(source.size) or "-"
        rows.append((source.name, source.kind, source.access, size, here, source.licence, source.title))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _describe(name: str) -> None:
    from viptt_core.files import format_size
    from viptt_core.sources.registry import data_source, medmnist_sets

    source = data_source(name)
    sets = medmnist_sets() if source.name == "medmnist3d" else {}
    facts = {
        "page": source.page,
        "licence": f"{source.licence} {source.licence_url}".strip(),
        "access": source.access,
        "size": format_size(source.size),
        "used for": source.role,
        "cite": source.citation,
    }
    print(f"{source.title} ({source.name})\n  {source.about}")
    for what, value in facts.items():
        if value:
            print(f"  {what + ':':10}{value}")
    for file in source.files:
        print(f"  {'file:':10}{file.url} ({file.checksum or 'checksum recorded at the first download'})")
    for flag, entry in sets.items():
        counts = ", ".join(f"{part} {n}" for part, n in entry["n_samples"].items())
        print(f"  {flag}: {entry['license']}, {counts}; {', '.join(entry['label'].values())}")
    blocks = {
        "How to get it": [f"{number}. {step}" for number, step in enumerate(source.steps, 1)],
        "Layout": source.layout.split("\n"),
        "A complete copy holds": _expected_lines(source.expected),
        "How to use it": _use_lines(source),
        "Note": source.notes,
    }
    for title, lines in blocks.items():
        if any(lines):
            print(f"\n{title}:", *lines, sep="\n  ")


def _get(options) -> int:
    from viptt_core.sources.fetch import fetch
    from viptt_core.sources.registry import data_source

    source, place = data_source(options.name), options.root or data_source(options.name).default_root
    if source.access == "built in":
        print(f"{source.title} is built in: nothing to get. `viptt {source.name} DIR` writes it as files.")
        options.no_check = True
    elif source.access == "download":
        root, place = place, fetch(source, options.root, subset=options.subset, pixels=options.pixels)
        print(f"{source.title} is in {place}.")
        archives = [root / file.name for file in source.files if file.unpack and (root / file.name).is_file()]
        if archives:
            print(f"No longer needed: rm {shlex.join(map(str, archives))}")
    elif source.kind == "example" or not _holds_files(place):
        fetch(source, place)  # raises, and says how to get it
    if not options.no_check:
        report = _report(source.name, place, CHECK_PRESET, n_jobs=options.jobs)
        print(report)
        if report.spoils:
            print("Mend this first; `viptt data check` looks again.", file=sys.stderr)
            return 1
    print("Next:", *_use_lines(source, place), sep="\n  ")
    return 0


def _check(options) -> int:
    from viptt_core.errors import check_choice
    from viptt_core.sources.registry import load_registry

    check_choice("data set", options.name, [s.name for s in load_registry().values() if s.kind != "example"])
    settings = {key: getattr(options, key) for key in CHECK_SETTINGS if getattr(options, key) is not None}
    report = _report(options.name, options.root, options.preset, n_jobs=options.jobs, **settings)
    print(json.dumps(report.to_dict(), indent=1) if options.json else report)
    return int(report.spoils)


def _report(name: str, root: Path, preset: str, **settings):
    """Check a folder; what else is printed goes to the error stream."""
    from viptt_core.check import check_dataset

    with contextlib.redirect_stdout(sys.stderr):
        return check_dataset(name, root, preset=preset, **settings)


def _phantom(options) -> None:
    from viptt_core.synthetic.folders import imageclef, own_scans, write_folder

    n, settings = options.n, {"seed": options.seed, "size": options.size, "slices": options.slices}
    if options.patients:
        content, name = own_scans(n, options.patients, **settings), "folder"
        columns = " -p label_column diagnosis -p patient_column patient"
    else:
        content, name, columns = imageclef(n, **settings), "imageclef", ""
    folder = write_folder(options.folder, content, n_jobs=options.jobs)
    root = shlex.quote(str(folder))
    print(f"{n} synthetic scans in {folder}. Read them with: -p dataset {name} -p data_root {root}{columns}")


def _actions(options) -> None:
    from viptt_core.synthetic.folders import ucf50, write_folder

    content = ucf50(seed=options.seed, groups=options.groups, clips_per_group=options.clips)
    folder = write_folder(options.folder, content, n_jobs=options.jobs)
    root = shlex.quote(str(folder))
    print(f"Synthetic videos in {folder}. Read them with: -p pretrain_dataset ucf50 -p pretrain_root {root}")


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


def _expected_lines(expected) -> list[str]:
    lines = []
    for name, value in asdict(expected).items():
        if isinstance(value, dict):
            value = [f"{key} {n}" for key, n in value.items()]
        if isinstance(value, (list, tuple)):
            value = ", ".join(map(str, value))
        if value:
            lines.append(f"{name.replace('_', ' ')}: {value}")
    return lines
