"""`viptt study` and `viptt recheck`: run the arms of a plan, compute what they show, compare with what is committed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path


def add_study_commands(commands, positive) -> None:
    """Add `study` and `recheck` to the commands of `viptt`."""
    text = "run a study after its plan, and compute what it shows; `make paper` calls these in order"
    study = commands.add_parser("study", help=text, description=f"{text[0].upper()}{text[1:]}.")
    steps = study.add_subparsers(title="steps", required=True, metavar="STEP")
    shown = "show a plan: arms, seeds, stopping rule, families of tests; without STUDY, list the plans"
    _step(steps, "show", _show, shown, positive=positive)
    _step(
        steps,
        "estimate",
        _estimate,
        "list the data, time ten training steps of each kind, print fits and hours; start nothing",
        positive=positive,
    )
    _step(steps, "data", _data, "decode the sets", positive=positive)
    _step(steps, "pretrain", _pretrain, "pretrain for one arm, all its seeds", positive=positive, arms=True)
    _step(
        steps,
        "run",
        _run,
        "train arms, all seeds and folds; finished runs are found again. To the two arms of "
        "the primary contrast, named together, seeds are added as the rule asks",
        positive=positive,
        arms=True,
    )
    _step(steps, "baselines", _baselines, "predict without a network, where the plan asks for it", positive=positive)
    _step(steps, "evidence", _evidence, "occlusion and Grad-CAM of the arms that the plan names", positive=positive)
    packed = "put the predictions of each experiment into one file in results/, and compute every table from them"
    _step(steps, "pack", _pack, packed, positive=positive)
    _step(steps, "ledger", _ledger, "write the claim ledger, book/claims.md")
    _step(steps, "card", _card, "write the table of scores into the model card, MODEL_CARD.md")

    text = "recompute every number from the committed predictions, and say what differs (2 minutes, no GPU)"
    recheck = commands.add_parser("recheck", help=text, description=f"{text[0].upper()}{text[1:]}.")
    recheck.add_argument("studies", nargs="*", metavar="STUDY", help="default: all in results/")
    recheck.set_defaults(run=_recheck)


def _step(steps, name: str, run, text: str, *, positive=None, arms: bool = False) -> None:
    step = steps.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    step.set_defaults(run=run)
    if positive is None:  # it is about no plan
        return
    step.add_argument(
        "study",
        metavar="STUDY",
        nargs="?" if name == "show" else None,
        help="a plan that `viptt study show` lists, or a file PLAN.toml",
    )
    if arms:
        step.add_argument("arms", nargs="+" if name == "run" else 1, metavar="ARM", help="as `viptt study show` has it")
    step.add_argument("--scans-root", default="", help="folder (or .npz file) of the scans, for real data")
    step.add_argument("--videos-root", default="", help="folder of the videos, for real data")
    step.add_argument("--preset", default="", help="instead of the plan's, for a smaller run")
    step.add_argument("--seeds", type=positive, help="runs an arm, instead of the plan's")
    step.add_argument("--epochs", type=positive, help="of fine-tuning, at most")
    step.add_argument("--pretrain-epochs", type=positive, help="of pretraining, at most")
    step.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")


def _study(options: argparse.Namespace):
    """The plan with what the command line changes in it."""
    from dataclasses import replace

    from viptt_core.study.plan import load_study

    study = load_study(options.study)
    changes: dict = {}
    for field, root in (("scans", options.scans_root), ("videos", options.videos_root)):
        if root:
            changes[field] = getattr(study, field) | {"root": str(Path(root).resolve())}
    if options.preset:
        changes |= {"preset": options.preset, "arms": tuple(replace(arm, preset="") for arm in study.arms)}
    if options.seeds:
        arms = changes.get("arms", study.arms)
        changes |= {
            "seeds": options.seeds,
            "arms": tuple(replace(arm, seeds=0) for arm in arms),
            "primary": replace(study.primary, width=0.0),
        }
    settings = study.settings
    for stage, epochs in (("finetune", options.epochs), ("pretrain", options.pretrain_epochs)):
        if epochs:
            settings = settings | {stage: settings.get(stage, {}) | {"epochs": epochs}}
    if settings is not study.settings:
        changes["settings"] = settings
    return load_study(options.study, **changes)


def _runner(options: argparse.Namespace):
    from viptt_core.study.arms import Runner, StudyData
    from viptt_core.training.device import Engine

    study = _study(options)
    return Runner(study, StudyData(study), Engine(device=options.device, precision=study.precision))


def _show(options) -> None:
    from viptt_core.study.plan import describe, load_study, study_names

    if options.study:
        print(json.dumps(describe(_study(options)), indent=1))
        return
    for name in study_names():
        print(f"{name:10} {load_study(name).about}")


def _estimate(options) -> None:
    from viptt_core.study.cost import estimate
    from viptt_core.training.device import Engine

    study = _study(options)
    table = estimate(study, Engine(device=options.device, precision=study.precision))
    print(table.to_string(index=False, float_format="{:.3g}".format))
    print(
        f"{table['fits'].sum()} fits, at most {table['hours'].sum():.1f} hours one after another, each to its last "
        "epoch; most stop before. Nothing was started."
    )


def _data(options) -> None:
    runner = _runner(options)
    for arm in runner.study.arms:
        runner.data.scans(arm)
        if arm.pretrains:
            runner.data.videos(arm, 0)
    for name, loaded in runner.data.reports():
        print(f"{name}: {loaded}")


def _pretrain(options) -> None:
    runner = _runner(options)
    arm = runner.study.arm(options.arms[0])
    for seed in range(runner.study.seeds_of(arm)):
        run = runner.pretraining(arm, seed)
        print(run.report() if run else "nothing to pretrain", flush=True)


def _run(options) -> None:
    runner = _runner(options)
    study = runner.study
    arms = [study.arm(name) for name in options.arms]
    if {arm.name for arm in arms} == {study.primary.arm, study.primary.baseline}:
        runner.run_primary()
        return
    for arm in arms:
        outcomes = runner.run_arm(arm)
        print(f"{arm.name}: {len(outcomes.runs)} runs, {outcomes.runs['seconds'].sum():.0f} s of training", flush=True)


def _baselines(options) -> None:
    runner = _runner(options)
    if runner.study.baselines:
        print(", ".join(dict.fromkeys(runner.run_baselines().runs["arm"])))
    else:
        print(f"Study '{runner.study.name}' asks for no baselines.")


def _evidence(options) -> None:
    from viptt_core.study.evidence import gather_evidence

    print(gather_evidence(_runner(options)))


def _pack(options) -> None:
    from viptt_core.study.arms import pack, study_folder
    from viptt_core.study.recheck import write_study

    study = _study(options)
    packed = pack(study) if study_folder(study).is_dir() else []  # else those that were committed
    for path in [*packed, *write_study(study)]:
        print(path)


def _ledger(options) -> None:
    from viptt_core.study.ledger import PAGE, write_page

    print(write_page(PAGE))


def _card(options) -> None:
    from viptt_core.study.ledger import CARD, write_page

    print(write_page(CARD))


def _recheck(options) -> int:
    from viptt_core.study.recheck import recheck

    differing = recheck(options.studies or None)
    print("\n".join(differing) if differing else "identical")
    return 1 if differing else 0
