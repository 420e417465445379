"""`viptt predict`, `submit`, `validate-submission`, `score` and `weights`: using what was trained."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from viptt_core.cli.command import add_command
from viptt_core.errors import DataError, SettingError

DEVICES = "auto, cpu, cuda or mps (default: %(default)s)"


def add_predict_commands(commands, positive) -> None:
    """Add the commands to the subparsers of `viptt`; `positive` reads a number of at least 1."""
    predict = add_command(
        commands,
        "predict",
        _predict,
        "class probabilities of CT scans (NIfTI); exit code 1 if a scan could not be read. Research use only",
        "viptt predict data/own --weights runs/RUN -o predictions.csv",
    )
    _add_scans(predict, positive)
    predict.add_argument(
        "--weights",
        required=True,
        metavar="W",
        help="file, run (folder or name), or a name of `viptt weights list`",
    )
    form = predict.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV")
    predict.add_argument(
        "-o", "--output", type=Path, help="write to this file instead; .csv, .json or .txt say the form"
    )

    text = "predict the scans of ImageCLEF's TB-type task and write the file to submit"
    submit = add_command(
        commands,
        "submit",
        _submit,
        text,
        "viptt submit data/imageclef/test --weights RUN1 RUN2 RUN3 --ensemble vote -o submission.txt",
    )
    _add_scans(submit, positive)
    submit.add_argument(
        "--weights", required=True, nargs="+", metavar="W", help="of one or more models, see `viptt predict`"
    )
    submit.add_argument(
        "--ensemble",
        default="mean",
        help="mean: of the probabilities; vote: most models; authors: "
        "rounded mean of class numbers, three models (default: %(default)s)",
    )
    submit.add_argument("-o", "--output", type=Path, required=True, help="file to write, such as submission.txt")
    submit.add_argument(
        "--fill",
        type=positive,
        metavar="CLASS",
        help="class 1..5 for scans that cannot be read; without it, such a scan keeps the file from being written",
    )

    text = "check a submission file: a scan missing, double or misnamed, a class out of 1..5"
    validate = add_command(
        commands, "validate-submission", _validate, text, "viptt validate-submission submission.txt --expected 421"
    )
    validate.add_argument("file", type=Path)
    validate.add_argument(
        "--expected",
        type=positive,
        default=421,
        metavar="N",
        help="scans, TST_0001.nii.gz to TST_N.nii.gz (default: %(default)s)",
    )
    validate.add_argument("--scans", type=Path, help="folder of the scans: the expected names are theirs instead")

    text = "score predictions against labels: kappa, accuracy and AUC, with intervals over patients"
    score = add_command(
        commands,
        "score",
        _score,
        text,
        "viptt score predictions.csv labels.csv --label-column diagnosis --patient-column patient",
    )
    score.add_argument("predictions", type=Path, help="what `viptt predict --csv` wrote, or `viptt submit` kept")
    score.add_argument("labels", type=Path, help="CSV with one row a scan")
    score.add_argument("--file-column", default="", help="file name or path of a scan (default: FileName)")
    score.add_argument(
        "--label-column", default="", help="class: a name, or 1..5 for ImageCLEF's (default: Label, else TypeOfTB)"
    )
    score.add_argument(
        "--patient-column", default="", help="intervals are then over patients (default: each scan its own)"
    )
    score.add_argument("--json", action="store_true", help="print JSON")

    text = "list, show, get and convert weights"
    weights = commands.add_parser("weights", help=text, description=f"{text[0].upper()}{text[1:]}.")
    actions = weights.add_subparsers(title="commands", required=True, metavar="COMMAND")
    add_command(actions, "list", _list, "list the weights that are here, and the authors'", "viptt weights list")
    show = add_command(
        actions,
        "show",
        _show,
        "print the card of weights as JSON: classes, preprocessing, data, scores",
        "viptt weights show runs/RUN",
    )
    show.add_argument("weights", metavar="W", help="see `viptt predict`")
    get = add_command(
        actions, "get", _get, "download the authors' weights and convert them", "viptt weights get authors-tbt"
    )
    get.add_argument("name", help="authors-ucf50 or authors-tbt")
    imported = add_command(
        actions,
        "import",
        _import,
        "convert a Keras file (.h5) of the authors' network; TensorFlow is not needed",
        "viptt weights import ViPTT-Net-CLEF-TBT.h5 tbt.safetensors",
    )
    imported.add_argument("file", type=Path, help="the .h5 file")
    imported.add_argument("output", type=Path, metavar="OUT", help="file to write, ends in .safetensors")
    imported.add_argument(
        "--classes",
        default="",
        help="names of the classes, A,B,C, in the order of the outputs (default: the paper's, by their number)",
    )


def _add_scans(command: argparse.ArgumentParser, positive) -> None:
    command.add_argument("scans", nargs="+", type=Path, metavar="SCANS", help="NIfTI files, and folders of them")
    command.add_argument(
        "--masks",
        type=Path,
        help="folder of lung masks, for weights trained on the lungs' box (default: masks1 beside a scan)",
    )
    command.add_argument("--device", default="auto", help=DEVICES)
    command.add_argument(
        "--precision",
        default="fp32",
        help="fp32: the same digits on every machine; auto: the "
        "fastest, differs in the third digit (default: %(default)s)",
    )
    command.add_argument("--jobs", type=positive, help="threads that read (default: the available cores)")


def _predict(options) -> int:
    form = _form(options)
    if options.output and not options.output.absolute().parent.is_dir():  # worth knowing before the work
        raise DataError("no such folder.", path=options.output.absolute().parent, remedy="Make it first.")
    predictions = _predictions(options, [options.weights], options.scans)
    if form == "json":
        text = json.dumps(predictions.to_dict(), indent=1) + "\n"
    elif form == "csv":
        text = predictions.table().to_csv(index=False)
    else:
        text = f"{predictions}\n"
    if options.output:
        from viptt_core import files

        files.write_file(options.output, text)
        warned = sum(map(bool, predictions.warnings))
        told = f", {warned} of them with warnings" if warned else ""
        print(f"{len(predictions.names)} scans in {options.output}{told}")
    else:
        print(text, end="")
    return _say_failed(predictions, told=form == "text" and not options.output)


def _submit(options) -> int:
    from viptt_core.submission import count_classes, counts_text, expected_names
    from viptt_core.submission.entry import entry_models, entry_scans, keep_entry, plan_entry, write_entry

    plan = plan_entry(options.weights, ensemble=options.ensemble, output=options.output, fill=options.fill or 0)
    (paths, _), models = entry_scans(plan, options.scans), entry_models(plan)
    entry = keep_entry(plan, _predictions(options, models, paths))
    print(f"Probabilities of each model: {entry.kept}")
    code = _say_failed(entry.predictions, told=False)
    if entry.predictions.interrupted:
        return code
    classes = write_entry(entry)
    print(f"{len(classes)} scans in {plan.output}: {counts_text(count_classes(classes.tolist()))}")
    for note in entry.predictions.notes:
        print(note)
    whole = sorted(entry.names) == expected_names(len(classes))  # the benchmark's test set
    which = f"--expected {len(classes)}" if whole else f"--scans {options.scans[0]}"
    print(f"Check it: viptt validate-submission {plan.output} {which}")
    return 0


def _validate(options) -> None:
    from viptt_core.submission import counts_text, expected_names, validate_submission

    if options.scans:
        from viptt_core.prediction.scans import find_scans

        names = [path.name for path in find_scans([options.scans])]
    else:
        names = expected_names(options.expected)
    counts = validate_submission(options.file, names)
    print(f"{options.file} is sound: {sum(counts.values())} scans, {counts_text(counts)}")


def _score(options) -> None:
    from viptt_core.datasets.listing import is_synthetic
    from viptt_core.prediction.score import match_labels, read_labels, read_predictions
    from viptt_core.results import Summary

    table = read_labels(
        options.labels,
        file_column=options.file_column,
        label_column=options.label_column,
        patient_column=options.patient_column,
    )
    found = [match_labels(rows, table, arm=arm) for arm, rows in read_predictions(options.predictions).items()]
    summary = Summary(*(each.rows for each in found), synthetic=is_synthetic(table.path.parent), about="labelled scans")
    if options.json:
        first = found[0]
        print(
            json.dumps(
                {
                    "synthetic": summary.synthetic,
                    "scored": len(first.rows),
                    "failed": first.failed,
                    "unlabelled": first.unlabelled,
                    "unpredicted": first.unpredicted,
                    "rows": json.loads(summary.table.to_json(orient="records")),
                },
                indent=1,
            )
        )
    else:
        print(f"{found[0].report()}\n{summary}")


def _list(options) -> None:
    from viptt_core.prediction.weights import RELEASED, weights_here

    here = weights_here()
    for name, url in RELEASED.items():
        if name not in here:
            print(f"{name}  [viptt weights get {name}] the authors' weights, {url}")
    for name, card in here.items():
        print(f"{name}  [{card.preprocessing.kind}s, {len(card.classes)} classes] {card.about}")
    if not here:
        print("None is here yet. A training run leaves its own: make demo")


def _show(options) -> None:
    from viptt_core.prediction.weights import open_weights

    print(json.dumps(open_weights(options.weights).to_dict(), indent=1))


def _get(options) -> None:
    from viptt_core.prediction.weights import get_released

    weights = get_released(options.name)
    print(f"{weights.card.about}\n{weights.path}, sha256 {weights.sha256}")
    if weights.card.preprocessing.kind == "scan":
        print(f"Next: viptt predict SCANS --weights {options.name}")


def _import(options) -> None:
    from viptt_core.datasets.listing import class_choice
    from viptt_core.prediction.weights import import_keras

    weights = import_keras(options.file, options.output, classes=class_choice(options.classes))
    print(f"{weights.card.about}\n{', '.join(weights.classes)}\n{weights.path}, sha256 {weights.sha256}")


def _predictions(options, weights, scans):
    """What the models say about the scans, computed as the options ask for."""
    from viptt_core.prediction.scans import predict_scans
    from viptt_core.training.device import Engine

    engine = Engine(device=options.device, precision=options.precision)
    return predict_scans(weights, scans, masks=options.masks, engine=engine, n_jobs=options.jobs)


def _form(options) -> str:
    """ "json", "csv" or "text", by the flags or the ending of the output."""
    endings = {".json": "json", ".csv": "csv", ".txt": "text"}
    ending = options.output.suffix if options.output else ".txt"
    if ending not in endings:
        what = f"{options.output} does not end in {', '.join(endings)}."
        raise SettingError(what, remedy="Name a .csv: spreadsheets open it.")
    return "json" if options.json else "csv" if options.csv else endings[ending]


def _say_failed(predictions, *, told: bool) -> int:
    """Name the scans that could not be read; the exit code."""
    failed = [(name, error) for name, error in zip(predictions.names, predictions.errors, strict=True) if error]
    if failed and not told:
        print("\n".join(f"{name}: failed: {error}" for name, error in failed), file=sys.stderr)
    if predictions.interrupted:
        print("viptt: interrupted; what was predicted before is kept.", file=sys.stderr)
        return 130
    if failed:
        print(f"viptt: {len(failed)} of {len(predictions.names)} scans could not be read.", file=sys.stderr)
    return int(bool(failed))
