"""`viptt predict`, `submit`, `score` and `weights`: using what was trained."""

from __future__ import annotations

import json
import sys

from viptt_core.cli.command import add_command, add_group, path, positive
from viptt_core.errors import SettingError, check_choice


def add_predict_commands(commands) -> None:
    """Add the commands to the subparsers of `viptt`."""
    predict = add_command(commands, _predict, "viptt predict data/own --weights runs/RUN -o predictions.csv")
    text = "file, run (folder or name), or a name of `viptt weights list`"
    predict.add_argument("--weights", required=True, metavar="W", help=text)
    predict.add_argument("-o", "--output", type=path, help="write a table to this .csv file instead")

    example = "viptt submit data/imageclef/test --weights RUN1 RUN2 RUN3 --ensemble vote -o submission.txt"
    submit = add_command(commands, _submit, example)
    text = "of one or more models, see `viptt predict`"
    submit.add_argument("--weights", required=True, nargs="+", metavar="W", help=text)
    text = "mean: of the probabilities; vote: most models; authors: rounded mean of the class numbers of three models"
    submit.add_argument("--ensemble", default="mean", help=text)
    submit.add_argument("-o", "--output", type=path, required=True, help="file to write, such as submission.txt")
    text = "class 1..5 for scans that cannot be read; without it, such a scan keeps the file from being written"
    submit.add_argument("--fill", type=positive, metavar="CLASS", help=text)

    for command in (predict, submit):
        command.add_argument("scans", nargs="+", type=path, metavar="SCANS", help="NIfTI files, and folders of them")
        command.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
        text = "fp32: the same digits on every machine; auto: the fastest, differs in the third digit"
        command.add_argument("--precision", default="fp32", help=text)
        command.add_argument("--jobs", type=positive, help="threads that read (default: the available cores)")

    example = "viptt score predictions.csv labels.csv --label-column diagnosis --patient-column patient"
    score = add_command(commands, _score, example)
    score.add_argument("predictions", type=path, help="what `viptt predict -o` wrote, or `viptt submit` kept")
    score.add_argument("labels", type=path, help="CSV with one row a scan")
    score.add_argument("--file-column", default="", help="file name or path of a scan (default: FileName)")
    text = "class: a name, or 1..5 for ImageCLEF's (default: Label, else TypeOfTB)"
    score.add_argument("--label-column", default="", help=text)
    text = "intervals are then over patients (default: each scan its own)"
    score.add_argument("--patient-column", default="", help=text)

    weights = add_group(commands, "weights", "List, show, get and convert weights.")
    shown = add_command(weights, _list, "viptt weights list runs/RUN")
    shown.add_argument("weights", nargs="?", metavar="W", help="show these, see `viptt predict`")
    get = add_command(weights, _get, "viptt weights get authors-tbt")
    text = "authors-ucf50 or authors-tbt; a file .h5; or weights whose frozen backbone is to be left out"
    get.add_argument("name", help=text)
    text = "of a file, or of weights: where to write .safetensors"
    get.add_argument("output", nargs="?", type=path, metavar="OUT", help=text)


def _predict(options) -> int:
    """Class probabilities of CT scans (NIfTI); exit code 1 if a scan could not be read. Research use only."""
    from viptt_core.files import write_file
    from viptt_core.prediction.scans import check_output

    if options.output:
        check_choice("ending of the output", options.output.suffix, (".csv",))
        check_output(options.output)
    predictions = _predictions(options, [options.weights], options.scans)
    if options.output:
        write_file(options.output, predictions.table().to_csv(index=False))
        warned = sum(map(bool, predictions.warnings))
        told = f", {warned} of them with warnings" if warned else ""
        print(f"{len(predictions.names)} scans in {options.output}{told}")
    else:
        print(predictions)
    return _say_failed(predictions, told=not options.output)


def _submit(options) -> None:
    """Predict the scans of ImageCLEF's TB-type task and write the file to submit."""
    from viptt_core.submission import count_classes, counts_text
    from viptt_core.submission.entry import entry_models, entry_scans, keep_entry, plan_entry, write_entry

    plan = plan_entry(options.weights, ensemble=options.ensemble, output=options.output, fill=options.fill or 0)
    (paths, _), models = entry_scans(plan, options.scans), entry_models(plan)
    entry = keep_entry(plan, _predictions(options, models, paths))
    print(f"Probabilities of each model: {entry.kept}")
    _say_failed(entry.predictions)
    classes = write_entry(entry).tolist()
    print(f"{len(classes)} scans in {plan.output}: {counts_text(count_classes(classes))}")
    print(*entry.predictions.notes, sep="\n", end="\n" * bool(entry.predictions.notes))


def _score(options) -> None:
    """Score predictions against labels: kappa, accuracy and AUC, with intervals over patients."""
    from viptt_core.datasets.listing import is_synthetic
    from viptt_core.prediction.score import match_labels, read_labels, read_predictions
    from viptt_core.results import Summary

    columns = {name: getattr(options, name) for name in ("file_column", "label_column", "patient_column")}
    table = read_labels(options.labels, **columns)
    found = [match_labels(rows, table, arm=arm) for arm, rows in read_predictions(options.predictions).items()]
    summary = Summary(*(each.rows for each in found), synthetic=is_synthetic(table.path.parent), about="Labelled scans")
    print(f"{found[0].report()}\n{summary}")


def _list(options) -> None:
    """List the weights that are here, and the authors'; or print the card of some as JSON."""
    from viptt_core.prediction.weights import RELEASED, open_weights, weights_here

    if options.weights:
        print(json.dumps(open_weights(options.weights).to_dict(), indent=1))
        return
    here = weights_here()
    for name, url in RELEASED.items():
        if name not in here:
            print(f"{name}  [viptt weights get {name}] the authors' weights, {url}")
    for name, card in here.items():
        print(f"{name}  [{card.preprocessing.kind}s, {len(card.classes)} classes] {card.about}")


def _get(options) -> None:
    """Download the authors' weights or take a Keras file, and convert them; or write weights without their backbone."""
    from viptt_core.prediction.weights import get_released, import_keras, pack_weights

    if options.output and not options.name.endswith((".h5", ".hdf5", ".keras")):
        weights = pack_weights(options.name, options.output)
    elif options.output:
        weights = import_keras(path(options.name), options.output)
    elif options.name.endswith(".h5"):
        raise SettingError("a file needs a name for what is written.", path=options.name, remedy="Add OUT.safetensors.")
    else:
        weights = get_released(options.name)
    print(f"{weights.card.about}\n{', '.join(weights.classes)}\n{weights.path}, sha256 {weights.sha256}")
    if weights.card.preprocessing.kind == "scan":
        print(f"Next: viptt predict SCANS --weights {options.output or options.name}")


def _predictions(options, weights, scans):
    """What the models say about the scans, computed as the options ask for."""
    from viptt_core.prediction.scans import predict_scans
    from viptt_core.training.device import Engine

    engine = Engine(device=options.device, precision=options.precision)
    return predict_scans(weights, scans, engine=engine, n_jobs=options.jobs)


def _say_failed(predictions, *, told: bool = False) -> int:
    """Say how many scans could not be read, and which and why unless that was told; the exit code."""
    failures = predictions.failures
    if failures:
        count = f"viptt: {len(failures)} of {len(predictions.names)} scans could not be read."
        print(*([] if told else failures), count, sep="\n", file=sys.stderr)
    return int(bool(failures))
