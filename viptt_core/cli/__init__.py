"""The `viptt` command."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from viptt_core import __version__
from viptt_core.cli.address import add_address_command
from viptt_core.cli.command import add_command
from viptt_core.cli.data import add_data_commands
from viptt_core.cli.predict import add_predict_commands
from viptt_core.cli.study import add_study_commands
from viptt_core.errors import ViPTTError


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code. Errors a user can mend are one message, not a traceback."""
    options = build_parser().parse_args(arguments)
    for name, value in vars(options).items():
        if isinstance(value, Path):  # a shell leaves the ~ of --root=~/x as it is
            setattr(options, name, Path(os.path.expanduser(value)))
    try:
        code = options.run(options)
        sys.stdout.flush()  # here, where a closed pipe can be dealt with
    except ViPTTError as error:
        print(f"viptt: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("viptt: interrupted; what was complete is kept.", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains at its end
        return 0
    return code or 0


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command, help included."""
    parser = argparse.ArgumentParser(
        prog="viptt",
        description="ViPTT-Net: video pretraining for tuberculosis typing on chest CT. Research use only.",
        epilog="Experiments run as notebooks: papermill notebooks/02_finetune.py out.ipynb -p epochs 50",
    )
    parser.add_argument("--version", action="version", version=f"viptt {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    add_data_commands(commands, _positive)
    add_predict_commands(commands, _positive)
    add_study_commands(commands, _positive)

    phantom = add_command(
        commands,
        "phantom",
        _phantom,
        "write synthetic CT scans as an ImageCLEF folder or, with "
        "--patients, as a folder of one's own: several scans a patient, a label CSV",
    )
    phantom.add_argument("folder", type=Path, help="folder to write; an interrupted call is taken up again")
    phantom.add_argument("-n", type=_positive, default=20, help="number of scans (default: %(default)s)")
    phantom.add_argument(
        "--patients",
        type=_positive,
        help="number of patients, each with one scan or some; columns "
        "FileName,diagnosis,patient (default: ImageCLEF's layout, a patient a scan)",
    )
    phantom.add_argument("--size", type=_positive, default=512, help="voxels in-plane (default: %(default)s)")
    phantom.add_argument("--slices", type=_positive, help="slices a scan (default: by the patient's slice thickness)")

    actions = add_command(commands, "actions", _actions, "write synthetic activity videos as a UCF50 folder")
    actions.add_argument("folder", type=Path, help="folder to write; an interrupted call is taken up again")
    actions.add_argument("--groups", type=_positive, default=25, help="groups a class (default: %(default)s)")
    actions.add_argument("--clips", type=_positive, default=4, help="clips a group (default: %(default)s)")

    for command in (phantom, actions):
        command.add_argument("--seed", type=int, default=0, help="of the generator (default: %(default)s)")
        command.add_argument("--jobs", type=_positive, help="worker processes (default: the available cores)")

    train = add_command(
        commands,
        "train",
        _train,
        "run the comparison of 02_finetune without a notebook, in one or "
        "more processes: accelerate launch -m viptt_core train --preset corrected ...",
    )
    data = train.add_argument_group("data", "The same as the notebook takes; `viptt data list` shows the sets.")
    data.add_argument(
        "--dataset",
        default="phantom",
        help="scans: phantom, imageclef, mosmed, medmnist3d or folder (default: %(default)s)",
    )
    data.add_argument("--data-root", default="", help="folder of the scans, or the .npz file of medmnist3d")
    data.add_argument("--labels", default="", help="label CSV (default: the one in the folder)")
    data.add_argument("--file-column", default="", help="of the CSV of folder (default: FileName)")
    data.add_argument("--label-column", default="", help="of the CSV of folder (default: Label)")
    data.add_argument("--patient-column", default="", help="of the CSV of folder (default: each scan its own group)")
    data.add_argument("--classes", default="", help="names of the classes, or of class folders: A,B+C")
    data.add_argument("--crop", default="", help="lungs: the box around the lung mask")
    data.add_argument("--slice-axis", type=int, help="of medmnist3d: axis of a volume from slice to slice, 0 to 2")
    data.add_argument("--hu-window", default="", help="of scans, as in --hu-window=-1000,400 (default: the preset's)")
    data.add_argument(
        "--pretrain-dataset", default="actions", help="videos: actions, ucf50, ucf101 or folder (default: %(default)s)"
    )
    data.add_argument("--pretrain-root", default="", help="folder with one folder of videos a class")
    data.add_argument("--pretrain-classes", default="", help="class folders, A,B, or all (default: the paper's ten)")
    data.add_argument("--group-pattern", default="", help="which part of a video's name is its group")
    data.add_argument("--groups", default="", help="CSV that names the group of each video: file, class, group")
    data.add_argument("--n-scans", type=_positive, help="number of phantoms (default: the preset's)")
    data.add_argument("--n-videos", type=_positive, help="number of synthetic videos (default: the preset's)")
    data.add_argument("--on-error", default="", help="skip: leave unreadable files out and list them")
    what = train.add_argument_group("what to train")
    what.add_argument("--preset", default="demo", help="see `viptt presets`; or a TOML file (default: %(default)s)")
    what.add_argument("--starts", default="", help="from random,image,video (default: the preset's)")
    what.add_argument("--epochs", type=_positive, default=0, help="of fine-tuning, at most")
    what.add_argument("--pretrain-epochs", type=_positive, default=0, help="of pretraining, at most")
    what.add_argument("--seed", type=int, default=0, help="of split, weights, batches (default: %(default)s)")
    how = train.add_argument_group("how to run it")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    how.add_argument("--precision", default="auto", help="auto, fp32, bf16 or fp16 (default: %(default)s)")
    how.add_argument("--frames-per-chunk", type=_positive, default=0, help="fewer: less memory (default: what fits)")
    how.add_argument("--compile", action="store_true", help="run the backbone through torch.compile")
    how.add_argument("--tensorboard", action="store_true", help="log to TensorBoard too, in the run's folder")

    presets = add_command(commands, "presets", _presets, "list the presets, or show all settings of one")
    presets.add_argument("name", nargs="?", help="preset to show, or a TOML file of your own")

    summary = add_command(commands, "summary", _summary, "print the result table of an executed notebook")
    summary.add_argument("notebook", type=Path, help="for example out.ipynb")
    summary.add_argument("--runs", action="store_true", help="print the folders of the runs it shows instead")

    publish = add_command(
        commands,
        "publish",
        _publish,
        "execute notebooks and write them into the book, with the pictures and tables of its other pages",
    )
    publish.add_argument("names", nargs="*", metavar="NAME", help="such as 02_finetune (default: all)")
    publish.add_argument("--stale", action="store_true", help="only those that `viptt fresh --strict` complains of")

    fresh = add_command(commands, "fresh", _fresh, "say which published notebooks no longer fit their source or code")
    fresh.add_argument("--strict", action="store_true", help="fail when only package code changed, too")

    add_address_command(commands)
    add_command(commands, "env", _env, "print versions, machine and commit, for a bug report")
    return parser


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return value


def _phantom(options) -> None:
    from viptt_core.files import available_cores
    from viptt_core.synthetic.example import write_example
    from viptt_core.synthetic.phantom import write_imageclef

    settings = {
        "seed": options.seed,
        "size": options.size,
        "slices": options.slices,
        "n_jobs": options.jobs or available_cores(),
    }
    if options.patients:
        folder = write_example(options.folder, options.n, patients=options.patients, **settings)
        print(
            f"{options.n} synthetic scans of {options.patients} patients in {folder}, with {folder / 'labels.csv'}. "
            f"Read them with: -p dataset folder -p data_root {folder} -p label_column diagnosis "
            "-p patient_column patient"
        )
        return
    folder = write_imageclef(options.folder, options.n, **settings)
    print(f"{options.n} synthetic scans in {folder}. Read them with: -p dataset imageclef -p data_root {folder}")


def _actions(options) -> None:
    from viptt_core.files import available_cores
    from viptt_core.synthetic.actions import write_ucf50

    folder = write_ucf50(
        options.folder,
        seed=options.seed,
        groups=options.groups,
        clips_per_group=options.clips,
        n_jobs=options.jobs or available_cores(),
    )
    print(f"Synthetic videos in {folder}. Read them with: -p pretrain_dataset ucf50 -p pretrain_root {folder}")


def _train(options) -> None:
    from viptt_core.datasets import load_for
    from viptt_core.experiment import compare_starts, plan_experiment
    from viptt_core.probes import baseline_predictions
    from viptt_core.results import Summary
    from viptt_core.splits import make_split
    from viptt_core.training.device import process_state

    plan = plan_experiment(
        options.preset,
        starts=options.starts,
        epochs=options.epochs,
        pretrain_epochs=options.pretrain_epochs,
        hu_window=options.hu_window,
        seed=options.seed,
        device=options.device,
        precision=options.precision,
        frames_per_chunk=options.frames_per_chunk,
        compile=options.compile,
        tensorboard=options.tensorboard,
    )
    main = process_state().is_main_process
    scans = load_for(
        plan.preset,
        options.dataset,
        options.data_root,
        n=options.n_scans,
        labels=options.labels,
        file_column=options.file_column,
        label_column=options.label_column,
        patient_column=options.patient_column,
        classes=options.classes,
        crop=options.crop,
        slice_axis=options.slice_axis,
        on_error=options.on_error,
        progress=main,
    )
    videos = load_for(
        plan.preset,
        options.pretrain_dataset,
        options.pretrain_root,
        n=options.n_videos,
        classes=options.pretrain_classes,
        group_pattern=options.group_pattern,
        groups=options.groups,
        on_error=options.on_error,
        progress=main,
    )
    if main:
        print(f"Scans: {scans.report()}\nVideos: {videos.report()}", flush=True)
    comparison = compare_starts(plan, scans, videos)
    if main:
        print(f"{comparison.report()}\n")
        split = make_split(plan.preset.splits, scans, stage="finetune", seed=options.seed)
        baselines = baseline_predictions(scans, split)
        print(Summary(comparison.predictions, baselines, caveat=comparison.caveat, synthetic=scans.synthetic))


def _presets(options) -> None:
    from viptt_core.presets import load_preset, preset_names

    if options.name:
        print(json.dumps(asdict(load_preset(options.name)), indent=1))
    else:
        for name in preset_names():
            print(f"{name:10} {load_preset(name).about}")


def _summary(options) -> None:
    from viptt_core.book.publish import read_summary, recorded_runs

    print("\n".join(recorded_runs(options.notebook)) if options.runs else read_summary(options.notebook))


def _publish(options) -> None:
    from viptt_core.book.artwork import write_artwork
    from viptt_core.book.publish import PUBLISHED, is_stale, publish
    from viptt_core.errors import check_choice

    for name in options.names:
        check_choice("notebook", name, PUBLISHED)
    for name in options.names or PUBLISHED:
        if options.stale and not is_stale(name):
            print(f"{name} is fresh", flush=True)
        else:
            print(publish(name), flush=True)
    write_artwork()


def _fresh(options) -> None:
    from viptt_core.book.publish import PUBLISHED, check_freshness
    from viptt_core.errors import DataError

    stale = []
    for name in PUBLISHED:
        state = check_freshness(name)
        changed = [
            what for what, is_so in (("its source", state.source_changed), ("the package", state.code_changed)) if is_so
        ]
        print(f"{name:12} " + (f"stale: {' and '.join(changed)} changed" if changed else "fresh"))
        if state.source_changed or (options.strict and changed):
            stale.append(name)
    if stale:
        raise DataError(f"{', '.join(stale)} must be executed again.", remedy=f"Run: viptt publish {' '.join(stale)}")


def _env(options) -> None:
    from viptt_core.files import provenance

    print(json.dumps(provenance(), indent=1))


if __name__ == "__main__":
    sys.exit(main())
