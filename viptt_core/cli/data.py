"""The commands `viptt data ...`, and those that write synthetic sets as files."""

from __future__ import annotations

import contextlib
import shlex
import sys
from pathlib import Path

from viptt_core.cli.command import add_command, add_group, path, positive, print_table
from viptt_core.files import format_size
from viptt_core.sources.registry import DataSource, data_source, load_registry, medmnist_sets

CHECK_PRESET = "paper"  # 70 frames, the affine as it is: the strictest on videos
# Settings of a data set that a check takes: the same as the notebooks.
CHECK_SETTINGS = {
    "labels": "label CSV (default: the one in the folder)",
    "file_column": "its column with the file names",
    "label_column": "its column with the labels",
    "patient_column": "its column with the patient",
    "group_pattern": "regular expression: which part of a file's name is its group",
    "groups": "CSV that names the group of each file in class folders: file, class, group",
    "classes": "folders or labels to take, separated by commas; A+B joins two; or all",
    "task": "of lidc: types or malignancy",
    "centre": "of lidc: pixels a side of the middle of each slice that are kept",
}


def add_data_commands(commands) -> None:
    """Add `data` and its commands, `phantom` and `actions` to the subparsers of `viptt`."""
    data = add_group(commands, "data", "List, get and check the data sets.")

    shown = add_command(data, _list, "viptt data list imageclef")
    shown.add_argument("name", nargs="?", help="one set: how to get it, its layout, how to use and cite it")

    get = add_command(data, _get, "viptt data get medmnist3d --subset nodulemnist3d")
    get.add_argument("name", help="see `viptt data list`")
    get.add_argument("--root", type=path, help="folder to put it into (default: data/NAME)")
    get.add_argument("--subset", default="", help="of medmnist3d: which of its sets (default: nodulemnist3d)")
    get.add_argument("--pixels", type=int, default=28, choices=(28, 64), help="of medmnist3d")
    get.add_argument("--no-check", action="store_true", help="do not read every file afterwards")

    example = "viptt data check folder DIR --labels labels.csv --label-column diagnosis --patient-column patient"
    check = add_command(data, _check, example)
    check.add_argument("name", help="see `viptt data list`")
    check.add_argument("root", type=path, help="folder or .npz file")
    check.add_argument("--preset", default=CHECK_PRESET, help="whose grid counts")
    own = check.add_argument_group("settings of the data set", "The same as the notebooks take.")
    for name, text in CHECK_SETTINGS.items():
        own.add_argument(f"--{name.replace('_', '-')}", type=int if name == "centre" else str, help=text)

    phantom = add_command(commands, _phantom, "viptt phantom data/phantom -n 20")
    phantom.add_argument("-n", type=positive, default=20, help="number of scans")
    phantom.add_argument("--patients", type=positive, help="number of patients, for a layout of one's own")
    phantom.add_argument("--size", type=positive, default=512, help="voxels in-plane")
    phantom.add_argument("--slices", type=positive, help="slices a scan (default: by the patient's slice thickness)")

    actions = add_command(commands, _actions, "viptt actions data/actions --groups 3")
    actions.add_argument("--groups", type=positive, default=25, help="groups a class")
    actions.add_argument("--clips", type=positive, default=4, help="clips a group")

    for command in (phantom, actions):
        command.add_argument("folder", type=path, help="folder to write; an interrupted call is taken up again")
        command.add_argument("--seed", type=int, default=0, help="of the generator")
    for command in (get, check, phantom, actions):
        command.add_argument("--jobs", type=positive, help="worker processes (default: the available cores)")


def _list(options) -> None:
    """List the data sets and which are here, or say all that is known of one."""
    if options.name:
        _describe(data_source(options.name))
        return
    rows = [("NAME", "KIND", "ACCESS", "SIZE", "HERE", "LICENCE", "WHAT")]
    for source in load_registry().values():
        here = "built in" if source.access == "built in" else "yes" if _holds_files(source.default_root) else "no"
        size = format_size(source.size) or "-"
        rows.append((source.name, source.kind, source.access, size, here, source.licence, source.title))
    print_table(rows)


def _describe(source: DataSource) -> None:
    files = [f"{file.url} ({file.checksum or 'checksum recorded at the first download'})" for file in source.files]
    for name, entry in medmnist_sets().items() if source.name == "medmnist3d" else ():
        counts = ", ".join(f"{part} {n}" for part, n in entry["n_samples"].items())
        files.append(f"{name}: {entry['license']}, {counts}; {', '.join(entry['label'].values())}")
    told = {
        "Page": [source.page],
        "Licence": [f"{source.licence} {source.licence_url}"],
        "Access": [f"{source.access} {format_size(source.size)}"],
        "Used for": [source.role],
        "Cite": [source.citation],
        "Files": files,
        "How to get it": [f"{number}. {step}" for number, step in enumerate(source.steps, 1)],
        "Layout": source.layout.split("\n"),
        "A complete copy holds": [f"{source.n_files:,} labelled files"] if source.n_files else [],
        "How to use it": _use_lines(source),
        "Note": source.notes,
    }
    print(f"{source.title} ({source.name})\n  {source.about}")
    for title, lines in told.items():
        if any(lines):
            print(f"{title}:", *lines, sep="\n  " if len(lines) > 1 else " ")


def _get(options) -> int:
    """Download, unpack and check a data set; say how, where that is not possible."""
    source = data_source(options.name)
    place, check = options.root or source.default_root, not options.no_check
    if source.access == "built in":
        print(f"{source.title} is built in: nothing to get. `viptt {source.name} DIR` writes it as files.")
        check = False
    elif source.access == "download" or source.kind == "example" or not _holds_files(place):
        from viptt_core.sources.fetch import fetch

        root, place = place, fetch(source, place, subset=options.subset, pixels=options.pixels)  # or says how
        print(f"{source.title} is in {place}.")
        archives = [root / file.name for file in source.files if file.unpack and (root / file.name).is_file()]
        if archives:
            print(f"No longer needed: rm {shlex.join(map(str, archives))}")
    if check:
        report = _report(source.name, place, preset=CHECK_PRESET, n_jobs=options.jobs)
        print(report)
        if report.spoils:
            print("Mend this first; `viptt data check` looks again.", file=sys.stderr)
            return 1
    print("Next:", *_use_lines(source, place), sep="\n  ")
    return 0


def _check(options) -> int:
    """Read every file of a data set once and report what would spoil a run; exit code 1 if anything would."""
    settings = {name: getattr(options, name) for name in ("preset", *CHECK_SETTINGS)}
    report = _report(options.name, options.root, n_jobs=options.jobs, **settings)
    print(report)
    return int(report.spoils)


def _report(name: str, root: Path, **settings):
    """Check a folder; what else is printed goes to the error stream."""
    from viptt_core.check import check_dataset

    with contextlib.redirect_stdout(sys.stderr):
        return check_dataset(name, root, **settings)


def _phantom(options) -> None:
    """Write synthetic CT scans in the layout of ImageCLEF, or in one's own: scans and a label CSV."""
    from viptt_core.synthetic.folders import imageclef, own_scans

    settings = {"seed": options.seed, "size": options.size, "slices": options.slices}
    if options.patients:
        columns = "-p label_column diagnosis -p patient_column patient"
        _write(options, own_scans(options.n, options.patients, **settings), f"{columns} -p dataset folder -p data_root")
    else:
        _write(options, imageclef(options.n, **settings), "-p dataset imageclef -p data_root")


def _actions(options) -> None:
    """Write synthetic activity videos as a UCF50 folder."""
    from viptt_core.synthetic.folders import ucf50

    content = ucf50(seed=options.seed, groups=options.groups, clips_per_group=options.clips)
    _write(options, content, "-p pretrain_dataset ucf50 -p pretrain_root")


def _write(options, content, parameters: str) -> None:
    """Write synthetic files, and say how a notebook reads them."""
    from viptt_core.synthetic.folders import write_folder

    folder = write_folder(options.folder, content, n_jobs=options.jobs)
    print(f"Synthetic files are in {folder}. Read them with: {parameters} {shlex.quote(str(folder))}")


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
