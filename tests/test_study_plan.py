"""Plans: the ones that come with the package are whole, and a wrong one is refused by name."""

from itertools import product

import pytest
from small_study import TOO_FEW
from tracked import tracked_files

from viptt_core.errors import SettingError
from viptt_core.study.plan import load_study, parse_study


@pytest.mark.parametrize("name", [path.stem for path in tracked_files("viptt_core/study/plans/*.toml")])
def test_every_plan_of_the_package_can_be_read(name):
    study = load_study(name)
    assert study.name == name and len(study.digest) == 16
    for arm in study.arms:
        assert study.preset_of(arm).stage(arm.start).epochs > 0 and study.seeds_of(arm) > 0


def test_the_factorial_has_every_combination_once_in_the_order_of_its_weights():
    study, wanted = load_study("synthetic"), []
    for rotate, weighted, unfrozen, start in product((False, True), (False, True), (False, True), ("image", "video")):
        factors = {"unfrozen": unfrozen, "weights": weighted, "rotation": rotate}
        wanted.append("-".join([start, *(name for name, on in factors.items() if on)]))
        stage = study.preset_of(study.arm(wanted[-1])).stage(start)
        assert (not stage.freeze_backbone, stage.class_weights, stage.rotate) == tuple(factors.values())
    assert list(study.factorial_arms) == wanted


def test_cells_that_train_the_same_layers_share_a_learning_rate():
    rates = {arm.name: arm.rate_of for arm in load_study("synthetic").arms if arm.experiment == "attribution"}
    assert rates["image"] == "" and rates["image-weights"] == "image"
    assert rates["video-unfrozen-weights"] == rates["video-unfrozen"] == "video-unfrozen-rotation"


@pytest.mark.parametrize("start, theirs", [("video", (False, True, True)), ("image", (True, False, False))])
def test_the_papers_arms_keep_the_authors_unequal_settings(start, theirs):
    study = load_study("paper")
    stage = study.preset_of(study.arm(f"{start}, as the authors")).stage(start)
    assert (stage.freeze_backbone, stage.class_weights, stage.rotate) == theirs


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": [*TOO_FEW["arms"], {"name": "x", "experiment": "e", "start": "vidio"}]}, "Did you mean 'video'"),
        ({"arms": [*TOO_FEW["arms"], TOO_FEW["arms"][0]]}, "names an arm twice: random"),
        ({"primary": {"arm": "vdeo", "baseline": "random"}}, "arm of study 'mine' 'vdeo' does not exist. Did you mean"),
        ({"families": [{"name": "f", "question": "?", "contrasts": [["video", "scratch"]]}]}, "'scratch'"),
        ({"settings": {"finetune": {"rotat": True}}}, "rotate"),
        ({"seeds": "many"}, "seeds of \\[mine\\] is 'many'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(changes, said):
    with pytest.raises(SettingError, match=said):
        parse_study("mine", TOO_FEW | changes, "mine.toml")


def test_a_changed_plan_has_another_digest_but_where_the_files_lie_is_no_part_of_it():
    study, fewer = load_study("lidc"), load_study("lidc", seeds=1)
    assert fewer.digest != study.digest and fewer.seeds == 1
    moved = load_study("lidc", scans=study.scans | {"root": "/elsewhere"})
    assert moved.digest == study.digest and moved.scans["root"] == "/elsewhere"
