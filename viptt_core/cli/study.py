"""`viptt study` and `viptt recheck`: run the arms of a plan, compute what they show, compare with what is committed."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from viptt_core.cli.command import add_command, add_group, positive, print_table

BASELINES = "baselines"  # named among the arms, what needs no network


def add_study_commands(commands) -> None:
    """Add `study` and `recheck` to the commands of `viptt`."""
    text = "Run a study after its plan, and compute what it shows; `make paper` calls these in order."
    steps = add_group(commands, "study", text)
    for run in (_show, _estimate, _data, _run, _pack):
        step = add_command(steps, run, "viptt study run my.toml" if run is _run else "")
        text = "a plan that `viptt study show` lists, or PLAN.toml"
        step.add_argument("study", metavar="STUDY", nargs="?" if run is _show else None, help=text)
        if run is _run:
            text = f"as `viptt study show` has it, or '{BASELINES}'; none: everything, packed and judged"
            step.add_argument("arms", nargs="*", metavar="ARM", help=text)
            step.add_argument("--jobs", type=positive, help="processes; by default one a core, on a GPU one")
        step.add_argument("--scans-root", default="", help="folder (or .npz file) of the scans, for real data")
        text = "folder of the videos, for real data; of several sources each with its name"
        step.add_argument("--videos-root", action="append", default=[], metavar="[SOURCE=]DIR", help=text)
        step.add_argument("--preset", default="", help="instead of the plan's, for a smaller run")
        step.add_argument("--seeds", type=positive, help="runs an arm, instead of the plan's")
        step.add_argument("--epochs", type=positive, help="of fine-tuning, at most")
        step.add_argument("--pretrain-epochs", type=positive, help="of pretraining, at most")
        step.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    add_command(steps, _ledger)
    studies = add_command(commands, _recheck)
    studies.add_argument("studies", nargs="*", metavar="STUDY", help="default: all in results/")


def _study(options: Namespace):
    """The plan with what the command line changes in it."""
    from viptt_core.study.plan import load_study

    study = load_study(options.study)
    changes = {"arms": study.arms, "settings": study.settings, "sources": dict(study.sources)}
    if options.scans_root:
        changes["scans"] = study.scans | {"root": str(Path(options.scans_root).expanduser().resolve())}
    for text in options.videos_root:
        source, _, folder = text.rpartition("=") if text.partition("=")[0] in study.sources else ("", "", text)
        for name in [source] if source else study.sources:
            changes["sources"][name] = study.sources[name] | {"root": str(Path(folder).expanduser().resolve())}
    if options.preset:
        changes |= {"preset": options.preset, "arms": tuple(replace(arm, preset="") for arm in changes["arms"])}
    if options.seeds:
        changes |= {"seeds": options.seeds, "arms": tuple(replace(arm, seeds=0) for arm in changes["arms"])}
    for stage, epochs in (("finetune", options.epochs), ("pretrain", options.pretrain_epochs)):
        if epochs:
            changes["settings"] = changes["settings"] | {stage: study.settings.get(stage, {}) | {"epochs": epochs}}
    if options.pretrain_epochs:
        changes["pretrain_steps"] = 0
    return load_study(options.study, **changes)


def _runner(options: Namespace):
    from viptt_core.study.runs import Runner
    from viptt_core.training.device import Engine

    study = _study(options)
    return Runner(study, Engine(device=options.device, precision=study.precision))


def _show(options) -> None:
    """Show a plan: arms, seeds, questions and their contrasts; without STUDY, list the plans."""
    from viptt_core.study.plan import describe, load_study, study_names

    if options.study:
        print(json.dumps(describe(_study(options)), indent=1))
    else:
        print_table((name, load_study(name).about) for name in study_names())


def _estimate(options) -> None:
    """List the data, time ten training steps of each kind, print fits and hours; start nothing."""
    from viptt_core.study.cost import estimate

    runner = _runner(options)
    table = estimate(runner.study, runner.engine)
    print(table.to_string(index=False, float_format="{:.3g}".format))
    print(
        f"{table['fits'].sum()} fits, at most {table['hours'].sum():.1f} hours one after another, each to its last "
        "epoch; most stop before. Nothing was started."
    )


def _data(options) -> None:
    """Decode or simulate the sets, and compute the features that are kept."""
    runner = _runner(options)
    runner.prepare(runner.study.arms)


def _run(options) -> None:
    """Run arms, all seeds and folds; finished runs are found again. Without ARM: all of the plan, then its tables and
    verdicts.
    """
    from viptt_core.files import available_cores
    from viptt_core.training.device import pick_device

    runner = _runner(options)
    named = options.arms or [arm.name for arm in runner.study.arms] + [BASELINES] * runner.study.baselines
    arms = [runner.study.arm(name) for name in named if name != BASELINES]
    on_cpu = pick_device(options.device).type == "cpu"
    if arms:
        runner.run_all(arms, options.jobs or (available_cores() if on_cpu else 1))
    if BASELINES in named:
        runner.run_baselines()
        runner.run_evidence()
    if not options.arms:
        _write(runner.study)


def _pack(options) -> None:
    """Put the predictions of each experiment into one file in results/, and compute tables and verdicts from them."""
    _write(_study(options))


def _write(study) -> None:
    from viptt_core.files import artifact_root
    from viptt_core.study.cells import pack, study_folder
    from viptt_core.study.recheck import write_study
    from viptt_core.study.verdict import read_verdicts

    packed = pack(study) if study_folder(study).is_dir() else []  # else those that were committed
    for path in [*packed, *write_study(study)]:
        print(path)
    for record in read_verdicts(artifact_root()):
        if record["study"] == study.name:
            print(f"{record['question']} {record['sentence']}")


def _ledger(options) -> None:
    """Write what follows from all results: verdicts, claim ledger, table of the model card, the README's sentence."""
    from viptt_core.study.ledger import write_pages

    for path in write_pages():
        print(path)


def _recheck(options) -> int:
    """Recompute every number from the committed predictions, and say what differs (2 minutes, no GPU)."""
    from viptt_core.study.recheck import recheck

    differing = recheck(options.studies or None)
    print("\n".join(differing) if differing else "identical")
    return 1 if differing else 0
