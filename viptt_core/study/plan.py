"""The analysis plan of a study: arms, seeds, questions and their contrasts; fixed before the first run.

The plans stand in `plans/NAME.toml` beside this file. A reader's own plan is a file of the same form.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from operator import itemgetter
from pathlib import Path
from typing import Any

from viptt_core.backbones import find_backbone
from viptt_core.errors import check_choice, check_counts, require
from viptt_core.presets import STARTS, Preset, Stage, build, load_preset, read_toml

PLANS = Path(__file__).parent / "plans"
MEASURES = ("kappa", "rare recall")  # what a contrast compares
# Changes of the clips that make a control; how: `variants.py`.
VIDEO_VARIANTS = ("sound", "shuffled labels", "shuffled frames", "still frames")
SCAN_VARIANTS = ("sound", "no finding", "shuffled slices")
STAGES = ("pretrain", "finetune")
STATED = ("class_weights", "rotate", "freeze_backbone")  # settings of fine-tuning that an arm may state
SEEDS_OF_A_VERDICT = 8  # with fewer, a contrast has an interval and no verdict


@dataclass(frozen=True)
class Arm:
    """One condition of a study: what differs from the preset."""

    name: str  #: unique in the study
    experiment: str  #: the group of arms whose predictions lie in one file
    #: "random", "image" (ImageNet weights) or "video" (the same, pretrained on videos). Unlike in an experiment of
    #: one's own, a frozen backbone may start at random, as a control.
    start: str
    sources: tuple[str, ...] = ()  #: sets of videos it is pretrained on, a head each; () takes all of the study's
    freeze_backbone: bool | None = None  #: of fine-tuning; None leaves the preset's
    class_weights: bool | None = None  #: of fine-tuning; None leaves the preset's
    rotate: bool | None = None  #: of fine-tuning; None leaves the preset's
    temporal: str = ""  #: "" leaves the preset's
    backbone: str = ""  #: "" leaves the preset's
    videos: str = "sound"  #: one of VIDEO_VARIANTS
    scans: str = "sound"  #: one of SCAN_VARIANTS
    n_train: int = 0  #: scans of a cohort; 0 takes the study's
    n_videos: int = 0  #: videos of a draw; 0 takes the study's
    extra_steps: bool = False  #: whether fine-tuning gets the steps of pretraining in addition, and never stops early
    seeds: int = 0  #: 0 takes the study's
    rates: tuple[float, ...] = ()  #: learning rates to choose from; () takes the study's
    preset: str = ""  #: another preset than the study's


@dataclass(frozen=True)
class Family:
    """A question, and the contrasts that answer it: their intervals are at 1 - 0.05 / number of contrasts."""

    name: str  #: for the reader
    question: str  #: for the reader
    contrasts: tuple  #: (arm, baseline) pairs, or for a difference of differences (arm, baseline, arm, baseline)
    measure: str = "kappa"  #: one of MEASURES
    verdict: bool = True  #: False where cohorts overlap, or for a look only; the intervals then stand alone


@dataclass(frozen=True)
class Study:
    """A whole plan."""

    name: str  #: for the reader
    about: str  #: for the reader
    preset: str  #: every setting that no arm changes
    #: Arguments of `datasets.load_dataset`, with `dataset`, and `root` for the folder. With `n_no_finding`, n of the
    #: variant "no finding"; what its seeds do not train on tests.
    scans: dict[str, Any]
    sources: dict[str, Any]  #: such arguments for each set of videos, by its name
    seeds: int  #: runs an arm, from seed 0
    arms: tuple[Arm, ...]  #: in the order of the tables
    families: tuple[Family, ...]  #: in the order of the tables; the one contrast of the first is the primary one
    #: Fields of the preset that the study changes; `pretrain` and `finetune` are tables of their own.
    settings: dict[str, Any] = field(default_factory=dict)
    #: The first so many scans test every run, the others are the pool; 0 with folds, or where the preset splits.
    n_test: int = 0
    #: Scans of the pool that one seed trains and validates on; 0 takes all. Seeds have disjoint cohorts as far as the
    #: pool allows.
    n_train: int = 0
    n_videos: int = 0  #: the same of each set of videos
    #: 0 for one split, else folds by group, of another partition each seed; each case is tested once a seed.
    folds: int = 0
    #: Learning rates, of pretraining, too; each seed and fold takes that of lowest validation loss; () the preset's.
    rates: tuple[float, ...] = ()
    pretrain_steps: int = 0  #: of every pretraining, whatever the sizes of its sets; 0 leaves them to the preset
    factors: tuple[str, ...] = ()  #: of the factorial, arms "START-FACTOR-FACTOR..." for all combinations; () for none
    factorial_seeds: int = 0  #: runs of the arms of the factorial that are not listed; 0 takes the study's
    gate: bool = False  #: whether there is a verdict only on sources that were learned, see `verdict.unlearned`
    baselines: bool = False  #: whether what needs no network stands beside the arms, see `probes.baseline_predictions`
    precision: str = "auto"  #: of the backbone, see `device.pick_precision`
    digest: str = ""  #: of the file, so that results name the plan they follow
    file: str = ""  #: where it was read

    @property
    def primary(self) -> tuple[str, str]:
        """Names of the two arms of the primary contrast, the baseline last."""
        return self.families[0].contrasts[0]

    @property
    def main(self) -> str:
        """The experiment of the primary contrast."""
        return self.arm(self.primary[0]).experiment

    def arm(self, name: str) -> Arm:
        """One arm; a SettingError with the near match where there is none of this name."""
        arms = {arm.name: arm for arm in self.arms}
        check_choice(f"arm of study '{self.name}'", name, tuple(arms))
        return arms[name]

    def experiments(self) -> dict[str, tuple[Arm, ...]]:
        """Arms by experiment, in the file's order."""
        names = dict.fromkeys(arm.experiment for arm in self.arms)
        return {name: tuple(arm for arm in self.arms if arm.experiment == name) for name in names}

    @property
    def factorial_arms(self) -> list[str]:
        """Arms of the factorial, none without factors. Bit 0 of an arm's place is the start, the others the factors."""
        return ["-".join([start, *on]) for start, on in _combinations(self.factors)]

    def seeds_of(self, arm: Arm) -> int:
        """Runs of an arm."""
        return arm.seeds or self.seeds

    def folds_of(self, arm: Arm) -> int:
        """Runs a seed, 1 without folds; another preset than the study's brings its own split."""
        return 1 if arm.preset else max(1, self.folds)

    def sources_of(self, arm: Arm) -> tuple[str, ...]:
        """The sets of videos an arm is pretrained on; () where it is not."""
        return (arm.sources or tuple(self.sources)) if arm.start == "video" else ()

    def rates_of(self, arm: Arm, stage: Stage) -> tuple[float, ...]:
        """Learning rates to choose from in a stage; an arm with another preset than the study's takes that one's."""
        return arm.rates or (() if arm.preset else self.rates) or (stage.learning_rate,)

    def stage_of(self, arm: Arm) -> Stage:
        """Fine-tuning of an arm; its learning rate is still that of the preset."""
        stage = self.preset_of(arm).stage(arm.start)
        # `Preset.stage` thaws one that starts at random; here it may be a control.
        return replace(stage, freeze_backbone=True, freeze_stem=True) if arm.freeze_backbone else stage

    def preset_of(self, arm: Arm) -> Preset:
        """The preset with the study's and the arm's changes."""
        preset = load_preset(arm.preset or self.preset)
        stages = {name: replace(getattr(preset, name), **self.settings.get(name, {})) for name in STAGES}
        plain = {name: value for name, value in self.settings.items() if name not in STAGES}
        named = {name: getattr(arm, name) for name in ("temporal", "backbone") if getattr(arm, name)}
        if arm.backbone and preset.backbone_weights:  # those are another backbone's
            named["backbone_weights"] = list(find_backbone(arm.backbone).weights)[-1]
        changed = {name: getattr(arm, name) for name in STATED if getattr(arm, name) is not None}
        if arm.freeze_backbone:  # with a frozen stem, too, features are computed once, see `inference.gather_features`
            changed["freeze_stem"] = True
        stages["finetune"] = replace(stages["finetune"], **changed)
        # What an arm states holds whatever its start; the preset's own difference between arms is for those that
        # state nothing.
        scratch = {name: value for name, value in preset.scratch.items() if name not in changed}
        return replace(preset, **{"scratch": scratch} | plain | stages | named)


def study_names() -> tuple[str, ...]:
    """The plans that come with the package."""
    return tuple(sorted(path.stem for path in PLANS.glob("*.toml")))


def load_study(name: str, **changes) -> Study:
    """Read a plan and check it as a whole.

    Args:
        name: Of a plan that comes with the package, or the path of a file that ends in .toml.
        changes: Fields of `Study` to replace, for a smaller or another run; the digest then differs, too.

    Raises:
        SettingError: no such plan, or it holds an unknown field, arm, variant or data set.
    """
    path = Path(name)
    if path.suffix != ".toml":
        check_choice("study", name, study_names())
        path = PLANS / f"{name}.toml"
    study = parse_study(path.stem, read_toml(path), path.name)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    for key in changes:
        check_choice("field of a study", key, [f.name for f in fields(Study)])
    # Where a reader's files lie is no part of the plan.
    told = {key: _without_roots(value) for key, value in changes.items()}
    told = {key: value for key, value in told.items() if value != _without_roots(getattr(study, key))}
    if told:
        digest = hashlib.sha256(f"{digest}{sorted(told.items())}".encode()).hexdigest()[:16]
    study = replace(study, **changes, digest=digest, file=str(path))
    _check(study)
    return study


def _without_roots(value):
    if not isinstance(value, dict):
        return value
    return {key: _without_roots(kept) for key, kept in value.items() if key != "root"}


def parse_study(name: str, table: dict[str, Any], file: str) -> Study:
    """Build a plan out of its parsed TOML table."""
    values = dict(table)
    listed = [build(Arm, arm, f"arms {number}", file) for number, arm in enumerate(values.pop("arms", []), 1)]
    listed += _factorial(values, {arm.name for arm in listed})
    families = [
        build(Family, family, f"families {number}", file) for number, family in enumerate(values.get("families", []), 1)
    ]
    study = build(Study, {"name": name} | values | {"arms": listed, "families": families}, name, file)
    _check(study)
    return study


def _combinations(factors: Sequence[str]) -> list[tuple[str, list[str]]]:
    """The start and the factors that are on of each arm of the factorial, see `Study.factorial_arms`."""
    places = range(2 ** (1 + len(factors))) if factors else ()
    on = [[factor for bit, factor in enumerate(factors, 1) if place >> bit & 1] for place in places]
    return [("video" if place & 1 else "image", on[place]) for place in places]


def _factorial(values: dict[str, Any], listed: set[str]) -> list[Arm]:
    """The arms of the factorial that are not listed. A factor that is off is stated as off, too."""
    arms = []
    for start, on in sorted(_combinations(values.get("factors", [])), key=itemgetter(0)):
        stated = {"class_weights": "weights" in on, "rotate": "rotation" in on}
        stated |= {"freeze_backbone": "unfrozen" not in on, "seeds": values.get("factorial_seeds", 0)}
        arms.append(Arm("-".join([start, *on]), "attribution", start, **stated))
    return [arm for arm in arms if arm.name not in listed]


def _check(study: Study) -> None:
    """What no single field can tell."""
    load_preset(study.preset)
    check_counts(seeds=study.seeds)
    check_counts(least=0, **{name: getattr(study, name) for name in ("n_test", "n_train", "n_videos", "folds")})
    names = [arm.name for arm in study.arms]
    twice = sorted({name for name in names if names.count(name) > 1})
    require(not twice, f"study '{study.name}' names an arm twice: {', '.join(twice)}.", "Rename one.")
    for arm in study.arms:
        check_choice(f"start of arm '{arm.name}'", arm.start, STARTS)
        check_choice(f"videos of arm '{arm.name}'", arm.videos, VIDEO_VARIANTS)
        check_choice(f"scans of arm '{arm.name}'", arm.scans, SCAN_VARIANTS)
        for source in arm.sources:
            check_choice(f"source of arm '{arm.name}'", source, tuple(study.sources))
        has_sources = arm.start != "video" or study.sources
        require(has_sources, f"arm '{arm.name}' starts from videos.", "Add them: [sources.videos].")
        if arm.backbone:
            find_backbone(arm.backbone)
    primary = [contrast for family in study.families[:1] for contrast in family.contrasts]
    remedy = 'Let its first family have one contrast: contrasts = [["ARM", "BASELINE"]].'
    require([len(arms) for arms in primary] == [2], f"study '{study.name}' has no primary contrast.", remedy)
    for family in study.families:
        check_choice(f"measure of family '{family.name}'", family.measure, MEASURES)
        for contrast in family.contrasts:
            what = f"a contrast of family '{family.name}' has {len(contrast)} arms."
            require(len(contrast) in (2, 4), what, "Give 2, or 4 for a difference of differences.")
            for name in contrast:
                study.arm(name)
    for name in study.settings:
        check_choice("setting of a study", name, [f.name for f in fields(Preset)])
    for stage in STAGES:
        for name in study.settings.get(stage, {}):
            check_choice(f"setting of {stage}", name, [f.name for f in fields(Stage)])


def slug(name: str) -> str:
    """An arm's name as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def describe(study: Study) -> dict[str, Any]:
    """The plan as plain values, for JSON; without where its file lay."""
    return {key: value for key, value in asdict(study).items() if key != "file"}
