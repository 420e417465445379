"""Plans: the ones that come with the package are whole, and a wrong one is refused by name."""

from itertools import product

import pytest
from small_study import TOO_FEW
from tracked import tracked_files

from viptt_core.errors import SettingError
from viptt_core.study.plan import load_study, parse_study

FAMILY = {"name": "f", "question": "?"}


@pytest.mark.parametrize("name", [path.stem for path in tracked_files("viptt_core/study/plans/*.toml")])
def test_every_plan_of_the_package_can_be_read(name):
    study = load_study(name)
    assert study.name == name and len(study.digest) == 16
    for arm in study.arms:
        assert study.stage_of(arm).epochs > 0 and study.seeds_of(arm) > 0


def test_the_factorial_has_every_combination_once_in_the_order_of_its_weights():
    study, wanted = load_study("synthetic"), []
    for rotate, weighted, start in product((False, True), (False, True), ("image", "video")):
        factors = {"weights": weighted, "rotation": rotate}
        wanted.append("-".join([start, *(name for name, on in factors.items() if on)]))
        stage = study.stage_of(study.arm(wanted[-1]))
        assert (stage.class_weights, stage.rotate) == tuple(factors.values()) and stage.freeze_backbone
    assert list(study.factorial_arms) == wanted


def test_a_frozen_backbone_may_start_at_random_as_a_control():
    study = load_study("synthetic")
    assert study.stage_of(study.arm("random CNN")) == study.stage_of(study.arm("image"))


@pytest.mark.parametrize("start, theirs", [("video", (False, True, True)), ("image", (True, False, False))])
def test_the_papers_arms_keep_the_authors_unequal_settings(start, theirs):
    study = load_study("paper")
    stage = study.stage_of(study.arm(f"{start}, as the authors"))
    assert (stage.freeze_backbone, stage.class_weights, stage.rotate) == theirs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": [*TOO_FEW["arms"], {"name": "x", "experiment": "e", "start": "vidio"}]}, "Did you mean 'video'"),
        ({"arms": [*TOO_FEW["arms"], TOO_FEW["arms"][0]]}, "names an arm twice: random"),
        ({"families": [FAMILY | {"contrasts": [["vdeo", "random"]]}]}, "'vdeo' does not exist. Did you mean"),
        ({"families": [FAMILY | {"contrasts": [["video", "scratch"]]}]}, "'scratch'"),
        ({"families": []}, "has no primary contrast"),
        ({"sources": {}}, "Add them: \\[sources.videos\\]"),
        ({"settings": {"finetune": {"rotat": True}}}, "rotate"),
        ({"seeds": "many"}, "seeds of \\[mine\\] is 'many'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(changes, said):
    with pytest.raises(SettingError, match=said):
        parse_study("mine", TOO_FEW | changes, "mine.toml")


def test_a_changed_plan_has_another_digest_but_where_the_files_lie_is_no_part_of_it():
    study, fewer = load_study("paper"), load_study("paper", seeds=1)
    assert fewer.digest != study.digest and fewer.seeds == 1
    moved = load_study("paper", scans=study.scans | {"root": "/elsewhere"})
    assert moved.digest == study.digest and moved.scans["root"] == "/elsewhere"
