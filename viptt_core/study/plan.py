"""The analysis plan of a study: arms, seeds, stopping rule, contrasts; fixed before the first run.

The plans stand in `plans/NAME.toml` beside this file. A reader's own plan is a file of the same form.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from viptt_core.backbones import BACKBONES
from viptt_core.errors import SettingError, check_choice
from viptt_core.presets import STARTS, Preset, Stage, build, load_preset, read_toml

PLANS = Path(__file__).parent / "plans"
TRANSFERS = ("all", "backbone", "temporal")  # parts of the network that fine-tuning takes over
MEASURES = ("kappa", "rare recall")  # what a contrast compares
# Changes of the clips that make a control; how: `variants.py`.
VIDEO_VARIANTS = ("sound", "shuffled labels", "shuffled frames", "still frames", "split by clip")
SCAN_VARIANTS = ("sound", "no finding", "shuffled slices")


@dataclass(frozen=True)
class Arm:
    """One condition of a study: what differs from the preset.

    Attributes:
        name: Unique in the study.
        experiment: The group of arms whose predictions lie in one file.
        start: "random", "image" or "video".
        transfer: What is taken over from pretraining; "" is all of it from videos, stem and backbone from single
            frames (as the paper's other start, ImageNet weights, has no recurrent part).
        freeze_backbone, class_weights, rotate: Of fine-tuning; None leaves the preset's.
        temporal, backbone: "" leaves the preset's.
        videos, scans: One of VIDEO_VARIANTS, SCAN_VARIANTS.
        n_train: Scans that train and validate, drawn of the pool by each seed; 0 takes the study's.
        extra_steps: Whether fine-tuning gets the steps of the pretraining in addition, without stopping early.
        seeds: 0 takes the study's.
        rate_of: Arm whose learning rate is taken; "" finds one in pilot runs of its own.
        preset: Another preset than the study's.
    """

    name: str
    experiment: str
    start: str
    transfer: str = ""
    freeze_backbone: bool | None = None
    class_weights: bool | None = None
    rotate: bool | None = None
    temporal: str = ""
    backbone: str = ""
    videos: str = "sound"
    scans: str = "sound"
    n_train: int = 0
    extra_steps: bool = False
    seeds: int = 0
    rate_of: str = ""
    preset: str = ""

    @property
    def pretrains(self) -> str:
        """Which pretraining it needs: "video", "image" or ""."""
        return "" if self.start == "random" else self.start

    @property
    def parts(self) -> str:
        """What is taken over from pretraining, one of TRANSFERS."""
        return self.transfer or ("backbone" if self.start == "image" else "all")


@dataclass(frozen=True)
class Rule:
    """The primary contrast and when to stop adding seeds to it: by the width of its interval, never by its value."""

    arm: str
    baseline: str
    measure: str = "kappa"
    width: float = 0.0  # of the 95 % interval; 0: no seeds are added
    more: int = 5  # seeds added at a time
    most: int = 30


@dataclass(frozen=True)
class Family:
    """Tests that are corrected together.

    Attributes:
        name, question: For the reader.
        contrasts: (arm, baseline) pairs, or for a difference of differences (arm, baseline, arm, baseline).
        measure: One of MEASURES.
    """

    name: str
    question: str
    contrasts: tuple
    measure: str = "kappa"


@dataclass(frozen=True)
class Study:
    """A whole plan.

    Attributes:
        name, about: For the reader.
        preset: Every setting that no arm changes.
        settings: Fields of the preset that the study changes; `pretrain` and `finetune` are tables of their own.
        scans, videos: Arguments of `datasets.load_dataset`: `dataset`, and its settings. `root` names the folder.
        n_pool: The first so many scans train and validate, the others test; 0 splits as the preset says.
        n_train: Scans each seed draws of the pool; 0 takes all.
        n_no_finding: Test scans of the variant "no finding" (each must be simulated); 0: as many as others.
        folds: 0 for one split, else folds by group, each case tested once a seed.
        seeds: Runs an arm.
        learning_rates: Of which each arm takes the one with the lowest validation loss; empty: the preset's.
        pilot_seed: Of these pilot runs; their data are drawn by it, no main run uses it.
        primary: See `Rule`.
        arms, families: In the order of the tables.
        factors: Of the factorial: arms "START" and "START-FACTOR-FACTOR..." for all combinations; () for none. Cells
            that train the same layers share a learning rate.
        evidence: What `evidence.py` explains: preset, starts and seed of the models, n and cohort of the phantoms.
        precision: Of the backbone, see `engine.pick_precision`.
        baselines: Whether what needs no network stands beside the arms, see `baselines.baseline_predictions`.
        digest: Of the file, so that results name the plan they follow.
        file: Where it was read.
    """

    name: str
    about: str
    preset: str
    scans: dict[str, Any]
    videos: dict[str, Any]
    seeds: int
    primary: Rule
    arms: tuple[Arm, ...]
    families: tuple[Family, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    n_pool: int = 0
    n_train: int = 0
    n_no_finding: int = 0
    folds: int = 0
    learning_rates: tuple = ()
    pilot_seed: int = 1000
    factors: tuple = ()
    evidence: dict[str, Any] = field(default_factory=dict)
    precision: str = "auto"
    baselines: bool = False
    digest: str = ""
    file: str = ""

    def arm(self, name: str) -> Arm:
        """One arm.

        Raises:
            SettingError: there is none of this name; says the near match.
        """
        known = {arm.name: arm for arm in self.arms}
        check_choice(f"arm of study '{self.name}'", name, tuple(known))
        return known[name]

    def experiments(self) -> dict[str, tuple[Arm, ...]]:
        """Arms by experiment, in the file's order."""
        names = dict.fromkeys(arm.experiment for arm in self.arms)
        return {name: tuple(arm for arm in self.arms if arm.experiment == name) for name in names}

    @property
    def factorial_arms(self) -> list[str]:
        """Arms of the factorial, none without factors: bit 0 of the place is the start, the others the factors."""
        places = range(2 ** (1 + len(self.factors))) if self.factors else ()
        on = [[factor for bit, factor in enumerate(self.factors, 1) if place >> bit & 1] for place in places]
        return ["-".join(["video" if place & 1 else "image", *on[place]]) for place in places]

    def seeds_of(self, arm: Arm) -> int:
        """Runs of an arm before any are added by the rule."""
        return arm.seeds or self.seeds

    def preset_of(self, arm: Arm) -> Preset:
        """The preset with the study's and the arm's changes; the learning rate is still that of the preset."""
        preset = load_preset(arm.preset or self.preset)
        stages = {name: replace(getattr(preset, name), **self.settings.get(name, {})) for name in _STAGES}
        plain = {name: value for name, value in self.settings.items() if name not in _STAGES}
        preset = replace(preset, **plain, **stages)
        named = {name: getattr(arm, name) for name in ("temporal", "backbone") if getattr(arm, name)}
        if arm.backbone and preset.backbone_weights:  # those are another backbone's
            named["backbone_weights"] = list(BACKBONES[arm.backbone].weights)[-1]
        changed = {name: getattr(arm, name) for name in ("class_weights", "rotate") if getattr(arm, name) is not None}
        if arm.freeze_backbone is not None:
            changed["freeze_backbone"] = arm.freeze_backbone
            if arm.freeze_backbone:
                changed["freeze_stem"] = True  # features are then computed once, see `features.py`
        finetune = replace(preset.finetune, **changed)
        # What an arm states holds whatever its start; the preset's own difference between arms is for those that
        # state nothing.
        scratch = {name: value for name, value in preset.scratch.items() if name not in changed}
        return replace(preset, finetune=finetune, scratch=scratch, **named)


_STAGES = ("pretrain", "finetune")


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
    table = read_toml(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    study = parse_study(path.stem, table, path.name)
    for key in changes:
        check_choice("field of a study", key, [f.name for f in fields(Study)])
    # Where a reader's files lie is no part of the plan.
    told = {key: _without_root(value) for key, value in changes.items()}
    told = {key: value for key, value in told.items() if value != _without_root(getattr(study, key))}
    if told:
        digest = hashlib.sha256(f"{digest}{sorted(told.items())}".encode()).hexdigest()[:16]
    study = replace(study, **changes)
    _check(study)
    return replace(study, digest=digest, file=str(path))


def _without_root(value):
    return {key: kept for key, kept in value.items() if key != "root"} if isinstance(value, dict) else value


def parse_study(name: str, table: dict[str, Any], file: str) -> Study:
    """Build a plan out of its parsed TOML table."""
    values = dict(table)
    listed = [build(Arm, arm, f"arms {number}", file) for number, arm in enumerate(values.pop("arms", []), 1)]
    listed += _factorial(values.get("factors", []), listed)
    values["arms"] = tuple(listed)
    values["families"] = [
        build(Family, family, f"families {number}", file) for number, family in enumerate(values.get("families", []), 1)
    ]
    values["primary"] = build(Rule, values.get("primary", {}), "primary", file)
    study = build(Study, {"name": name} | values, name, file)
    _check(study)
    return study


def _factorial(factors, listed: list[Arm]) -> list[Arm]:
    """The arms of the factorial that are not listed yet. A factor that is off is stated as off, too."""
    arms, known = [], {arm.name for arm in listed}
    for start in ("image", "video") if factors else ():
        for mask in range(2 ** len(factors)):
            on = [factor for bit, factor in enumerate(factors) if mask >> bit & 1]
            name = "-".join([start, *on])
            if name not in known:
                # One rate for all cells of a start that train the same layers: the listed arm's, or the plain cell's.
                alike = [arm.name for arm in listed if arm.start == start and arm.name.startswith(f"{start}-unfrozen")]
                rate_of = "" if name == start else alike[0] if "unfrozen" in on and alike else start
                arms.append(
                    Arm(
                        name,
                        "attribution",
                        start,
                        freeze_backbone="unfrozen" not in on,
                        class_weights="weights" in on,
                        rotate="rotation" in on,
                        rate_of=rate_of,
                    )
                )
    return arms


def _check(study: Study) -> None:
    """What no single field can tell."""
    load_preset(study.preset)
    names = [arm.name for arm in study.arms]
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SettingError(f"study '{study.name}' names an arm twice: {', '.join(twice)}.", remedy="Rename one.")
    for arm in study.arms:
        check_choice(f"start of arm '{arm.name}'", arm.start, STARTS)
        check_choice(f"transfer of arm '{arm.name}'", arm.transfer or "all", TRANSFERS)
        check_choice(f"videos of arm '{arm.name}'", arm.videos, VIDEO_VARIANTS)
        check_choice(f"scans of arm '{arm.name}'", arm.scans, SCAN_VARIANTS)
        check_choice(f"backbone of arm '{arm.name}'", arm.backbone or "small", tuple(BACKBONES))
        if arm.rate_of:
            study.arm(arm.rate_of)
    for name in (study.primary.arm, study.primary.baseline):
        study.arm(name)
    check_choice("measure", study.primary.measure, MEASURES)
    for family in study.families:
        check_choice(f"measure of family '{family.name}'", family.measure, MEASURES)
        for contrast in family.contrasts:
            if len(contrast) not in (2, 4):
                raise SettingError(
                    f"a contrast of family '{family.name}' has {len(contrast)} arms.",
                    remedy="Give 2, or 4 for a difference of differences.",
                )
            for name in contrast:
                study.arm(name)
    for name in study.settings:
        check_choice("setting of a study", name, [f.name for f in fields(Preset)])
    for stage in _STAGES:
        for name in study.settings.get(stage, {}):
            check_choice(f"setting of {stage}", name, [f.name for f in fields(Stage)])


def slug(name: str) -> str:
    """An arm's name as the name of a file."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def pretraining_key(study: Study, arm: Arm) -> str:
    """Arms with the same key share their pretraining runs; "" for those without, from random or ImageNet weights."""
    preset = study.preset_of(arm)
    if not arm.pretrains or (arm.start == "image" and preset.backbone_weights):
        return ""
    return slug(f"{preset.name} {preset.backbone} {preset.temporal} {arm.pretrains} {arm.videos}")


def describe(study: Study) -> dict[str, Any]:
    """The plan as plain values, for JSON; without where its file lay."""
    return {key: value for key, value in asdict(study).items() if key != "file"}
