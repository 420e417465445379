"""Plans: the ones that come with the package are whole, and a wrong one is refused by name."""

import pytest
from tracked import tracked_files

from viptt_core.errors import SettingError
from viptt_core.study.plan import load_study, parse_study

PLAIN = {
    "about": "",
    "preset": "study",
    "seeds": 2,
    "scans": {"dataset": "phantom"},
    "videos": {"dataset": "actions"},
    "primary": {"arm": "video", "baseline": "random"},
    "arms": [{"name": name, "experiment": "starts", "start": name} for name in ("random", "image", "video")],
}


def parse(**changes):
    return parse_study("mine", PLAIN | changes, "mine.toml")


@pytest.mark.parametrize("name", [path.stem for path in tracked_files("viptt_core/study/plans/*.toml")])
def test_every_plan_of_the_package_can_be_read(name):
    study = load_study(name)
    assert study.name == name and len(study.digest) == 16
    for arm in study.arms:
        assert study.preset_of(arm).stage(arm.start).epochs > 0 and study.seeds_of(arm) > 0


def test_the_factorial_has_every_combination_once():
    study = load_study("synthetic")
    names = {arm.name for arm in study.arms}
    on = ["", "unfrozen", "weights", "rotation"]
    wanted = {
        "-".join(filter(None, (start, on[1] * a, on[2] * b, on[3] * c)))
        for start in ("image", "video")
        for a in (0, 1)
        for b in (0, 1)
        for c in (0, 1)
    }
    assert len(wanted) == 16 and wanted <= names
    for name in wanted:
        stage = study.preset_of(study.arm(name)).stage(name.split("-")[0])
        factors = name.split("-")[1:]
        assert (not stage.freeze_backbone, stage.class_weights, stage.rotate) == tuple(f in factors for f in on[1:])


def test_the_papers_arms_keep_the_authors_unequal_settings():
    study = load_study("paper")
    ours, theirs = (
        study.preset_of(study.arm(name)).stage(name.split(",")[0])
        for name in ("video, as the authors", "image, as the authors")
    )
    assert (ours.freeze_backbone, ours.class_weights, ours.rotate) == (False, True, True)
    assert (theirs.freeze_backbone, theirs.class_weights, theirs.rotate) == (True, False, False)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": [*PLAIN["arms"], {"name": "x", "experiment": "e", "start": "vidio"}]}, "Did you mean 'video'"),
        ({"arms": [*PLAIN["arms"], PLAIN["arms"][0]]}, "names an arm twice: random"),
        ({"primary": {"arm": "vdeo", "baseline": "random"}}, "arm of study 'mine' 'vdeo' does not exist. Did you mean"),
        ({"families": [{"name": "f", "question": "?", "contrasts": [["video", "scratch"]]}]}, "'scratch'"),
        ({"settings": {"finetune": {"rotat": True}}}, "rotate"),
        ({"seeds": "many"}, "seeds of \\[mine\\] is 'many'"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_plan_is_refused_by_name(changes, said):
    with pytest.raises(SettingError, match=said):
        parse(**changes)


def test_a_changed_plan_has_another_digest():
    assert load_study("lidc").digest != load_study("lidc", seeds=1).digest
    assert load_study("lidc", seeds=1).seeds == 1


def test_where_the_files_lie_is_no_part_of_the_plan():
    study = load_study("lidc")
    moved = load_study("lidc", scans=study.scans | {"root": "/elsewhere"})
    assert moved.digest == study.digest and moved.scans["root"] == "/elsewhere"


def test_cells_that_train_the_same_layers_share_a_learning_rate():
    rates = {arm.name: arm.rate_of for arm in load_study("synthetic").arms if arm.experiment == "attribution"}
    assert rates["image"] == "" and rates["image-weights"] == "image"
    assert rates["video-unfrozen-weights"] == rates["video-unfrozen"] == "video-unfrozen-rotation"
