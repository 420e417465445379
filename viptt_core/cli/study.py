"""`viptt study` and `viptt recheck`: run the arms of a plan, compute what they show, compare with what is committed."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from viptt_core.cli.command import add_command, add_group, positive, print_table


def add_study_commands(commands) -> None:
    """Add `study` and `recheck` to the commands of `viptt`."""
    text = "Run a study after its plan, and compute what it shows; `make paper` calls these in order."
    steps = add_group(commands, "study", text)
    for run in (_show, _estimate, _data, _pretrain, _run, _baselines, _evidence, _pack):
        step, text = add_command(steps, run), "a plan that `viptt study show` lists, or a file PLAN.toml"
        step.add_argument("study", metavar="STUDY", nargs="?" if run is _show else None, help=text)
        if run in (_pretrain, _run):
            text = "as `viptt study show` has it"
            step.add_argument("arms", nargs="+" if run is _run else 1, metavar="ARM", help=text)
        step.add_argument("--scans-root", default="", help="folder (or .npz file) of the scans, for real data")
        step.add_argument("--videos-root", default="", help="folder of the videos, for real data")
        step.add_argument("--preset", default="", help="instead of the plan's, for a smaller run")
        step.add_argument("--seeds", type=positive, help="runs an arm, instead of the plan's")
        step.add_argument("--epochs", type=positive, help="of fine-tuning, at most")
        step.add_argument("--pretrain-epochs", type=positive, help="of pretraining, at most")
        step.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    add_command(steps, _ledger)
    add_command(steps, _card)
    studies = add_command(commands, _recheck)
    studies.add_argument("studies", nargs="*", metavar="STUDY", help="default: all in results/")


def _study(options: Namespace):
    """The plan with what the command line changes in it."""
    from viptt_core.study.plan import load_study

    study = load_study(options.study)
    changes = {"arms": study.arms, "settings": study.settings}
    for field, root in (("scans", options.scans_root), ("videos", options.videos_root)):
        if root:
            changes[field] = getattr(study, field) | {"root": str(Path(root).resolve())}
    if options.preset:
        changes |= {"preset": options.preset, "arms": tuple(replace(arm, preset="") for arm in changes["arms"])}
    if options.seeds:
        changes |= {"seeds": options.seeds, "primary": replace(study.primary, width=0.0)}
        changes["arms"] = tuple(replace(arm, seeds=0) for arm in changes["arms"])
    for stage, epochs in (("finetune", options.epochs), ("pretrain", options.pretrain_epochs)):
        if epochs:
            changes["settings"] = changes["settings"] | {stage: study.settings.get(stage, {}) | {"epochs": epochs}}
    return load_study(options.study, **changes)


def _runner(options: Namespace):
    from viptt_core.study.arms import Runner, StudyData
    from viptt_core.training.device import Engine

    study = _study(options)
    return Runner(study, StudyData(study), Engine(device=options.device, precision=study.precision))


def _show(options) -> None:
    """Show a plan: arms, seeds, stopping rule, families of tests; without STUDY, list the plans."""
    from viptt_core.study.plan import describe, load_study, study_names

    if options.study:
        print(json.dumps(describe(_study(options)), indent=1))
    else:
        print_table((name, load_study(name).about) for name in study_names())


def _estimate(options) -> None:
    """List the data, time ten training steps of each kind, print fits and hours; start nothing."""
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
    """Decode the sets."""
    runner = _runner(options)
    for arm in runner.study.arms:
        runner.data.scans(arm)
        if arm.pretrains:
            runner.data.videos(arm, 0)
    for name, loaded in runner.data.reports():
        print(f"{name}: {loaded}")


def _pretrain(options) -> None:
    """Pretrain for one arm, all its seeds."""
    runner = _runner(options)
    arm = runner.study.arm(options.arms[0])
    for seed in range(runner.study.seeds_of(arm)):
        run = runner.pretraining(arm, seed)
        print(run.report() if run else "nothing to pretrain", flush=True)


def _run(options) -> None:
    """Train arms, all seeds and folds; finished runs are found again. To the two arms of the primary contrast,
    named together, seeds are added as the rule asks.
    """
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
    """Predict without a network, where the plan asks for it."""
    runner = _runner(options)
    if runner.study.baselines:
        print(", ".join(dict.fromkeys(runner.run_baselines().runs["arm"])))
    else:
        print(f"Study '{runner.study.name}' asks for no baselines.")


def _evidence(options) -> None:
    """Write occlusion and Grad-CAM of the arms that the plan names."""
    from viptt_core.study.evidence import gather_evidence

    print(gather_evidence(_runner(options)))


def _pack(options) -> None:
    """Put the predictions of each experiment into one file in results/, and compute every table from them."""
    from viptt_core.study.arms import pack, study_folder
    from viptt_core.study.recheck import write_study

    study = _study(options)
    packed = pack(study) if study_folder(study).is_dir() else []  # else those that were committed
    for path in [*packed, *write_study(study)]:
        print(path)


def _ledger(options) -> None:
    """Write the claim ledger, book/claims.md."""
    from viptt_core.study.ledger import PAGE, write_page

    print(write_page(PAGE))


def _card(options) -> None:
    """Write the table of scores into the model card, MODEL_CARD.md."""
    from viptt_core.study.ledger import CARD, write_page

    print(write_page(CARD))


def _recheck(options) -> int:
    """Recompute every number from the committed predictions, and say what differs (2 minutes, no GPU)."""
    from viptt_core.study.recheck import recheck

    differing = recheck(options.studies or None)
    print("\n".join(differing) if differing else "identical")
    return 1 if differing else 0
