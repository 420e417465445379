"""Presets hold the authors' settings and refuse what they do not know."""

import dataclasses

import pytest

from viptt_core.errors import SettingError
from viptt_core.presets import load_preset, parse_preset, preset_names


def tables():
    import tomllib
    from importlib import resources

    return tomllib.loads(resources.files("viptt_core").joinpath("presets.toml").read_text())


def test_the_presets_are_there_in_order():
    assert preset_names() == ("paper", "corrected", "frozen", "demo", "study")


def test_the_paper_preset_is_what_the_authors_coded():
    paper = load_preset("paper")
    assert (paper.frames, paper.size, paper.backbone, paper.backbone_weights) == (
        70,
        224,
        "vgg16",
        "IMAGENET1K_FEATURES",
    )
    assert (paper.hidden_size, paper.feature_size, paper.stride, paper.fit) == (256, 1024, 1, "stretch")
    assert (paper.pretrain.epochs, paper.pretrain.batch_size, paper.pretrain.pixel_range) == (100, 1, "0..255")
    assert (paper.finetune.epochs, paper.finetune.batch_size, paper.finetune.pixel_range) == (1000, 2, "0..1")
    for stage in (paper.pretrain, paper.finetune):
        assert (stage.optimiser, stage.learning_rate) == ("sgd", 0.001)
        assert (stage.stop_patience, stage.plateau_patience, stage.plateau_factor) == (8, 5, 0.1)


def test_the_papers_arms_differ_in_four_things_and_the_corrected_ones_in_none():
    paper, corrected = load_preset("paper"), load_preset("corrected")
    scratch, video = paper.stage("image"), paper.stage("video")
    assert (scratch.freeze_backbone, scratch.class_weights, scratch.rotate) == (True, False, False)
    assert (video.freeze_backbone, video.class_weights, video.rotate) == (False, True, True)
    assert corrected.stage("image") == corrected.stage("video") == corrected.stage("random")


@pytest.mark.parametrize("name", preset_names())
def test_a_random_start_is_never_frozen(name):
    assert not load_preset(name).stage("random").freeze_backbone


def test_presets_cannot_be_changed_in_place():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_preset("demo").frames = 3


def test_epoch_limits_are_put_in_and_checked():
    preset = load_preset("demo").with_epochs(epochs=7, pretrain_epochs=3)
    assert (preset.finetune.epochs, preset.pretrain.epochs) == (7, 3)
    assert load_preset("demo").with_epochs() == load_preset("demo")
    with pytest.raises(SettingError, match="pretrain_epochs is -1"):
        load_preset("demo").with_epochs(pretrain_epochs=-1)


def test_an_unknown_preset_names_the_near_match():
    with pytest.raises(SettingError, match="'demmo'.*Did you mean 'demo'"):
        load_preset("demmo")


@pytest.mark.parametrize("section", [None, "finetune", "scratch"])
def test_an_unknown_field_is_refused_wherever_it_stands(section):
    known = tables()
    (known["paper"][section] if section else known["paper"])["epoch"] = 3
    with pytest.raises(SettingError, match="'epoch'"):
        parse_preset("paper", known)


def test_a_missing_or_mistyped_field_is_refused():
    known = tables()
    del known["paper"]["frames"]
    with pytest.raises(SettingError, match="lacks frames"):
        parse_preset("paper", known)
    known = tables()
    known["paper"]["finetune"]["batch_size"] = "two"
    with pytest.raises(SettingError, match="batch_size.*'two'.*int"):
        parse_preset("paper", known)
