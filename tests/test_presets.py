"""Presets hold the authors' settings and refuse what they do not know."""

import dataclasses

import pytest

from viptt_core.errors import SettingError, parse_hu_window
from viptt_core.presets import load_preset, preset_names


def test_the_paper_preset_is_what_the_authors_coded():
    paper = load_preset("paper")
    assert (paper.frames, paper.size) == (70, 224)
    assert (paper.backbone, paper.backbone_weights) == ("vgg16", "IMAGENET1K_FEATURES")
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


def test_epoch_limits_are_put_in_and_checked():
    preset = load_preset("demo").with_epochs(epochs=7, pretrain_epochs=3)
    assert (preset.finetune.epochs, preset.pretrain.epochs) == (7, 3)
    assert load_preset("demo").with_epochs() == load_preset("demo")
    with pytest.raises(SettingError, match="pretrain_epochs is -1"):
        load_preset("demo").with_epochs(pretrain_epochs=-1)


# --- The reader's own -----------------------------------------------------------------------------


def test_an_unknown_preset_names_the_near_match():
    assert preset_names() == ("paper", "corrected", "frozen", "demo", "study")
    with pytest.raises(SettingError, match="'demmo'.*Did you mean 'demo'"):
        load_preset("demmo")


@pytest.fixture
def write(tmp_path):
    def written(text: str) -> str:
        (tmp_path / "my.toml").write_text(text)
        return str(tmp_path / "my.toml")

    return written


def test_a_preset_of_the_readers_own_states_what_differs(write):
    path = write('[mine]\nbased_on = "demo"\nhu_window = [-1350, 150]\n[mine.finetune]\nepochs = 3\n')
    mine, demo = load_preset(path), load_preset("demo")
    assert (mine.name, mine.hu_window, mine.finetune.epochs) == ("mine", (-1350, 150), 3)
    assert dataclasses.replace(mine, name="demo", hu_window=demo.hu_window, finetune=demo.finetune) == demo
    assert dataclasses.replace(mine.finetune, epochs=demo.finetune.epochs) == demo.finetune


def test_one_of_several_tables_is_chosen_by_name_and_may_build_on_another(write):
    path = write('[a]\nbased_on = "b"\nframes = 7\n[b]\nbased_on = "study"\nsize = 32\n')
    assert (load_preset(f"{path}:a").frames, load_preset(f"{path}:a").size) == (7, 32)
    with pytest.raises(SettingError, match="Known: a, b"):
        load_preset(path)
    with pytest.raises(SettingError, match="my.toml: preset 'c' does not exist"):
        load_preset(f"{path}:c")


@pytest.mark.parametrize(
    "text, message",
    [
        ('[mine]\nbased_on = "demmo"', "'demmo'.*Did you mean 'demo'"),
        ('[mine]\nbased_on = "mine"', "based on itself"),
        ('[mine]\nbased_on = "demo"\nframe = 3', "field of .mine. 'frame'.*'frames'"),
        ('[mine]\nbased_on = "demo"\nframes = "many"', "frames of .mine. is 'many'"),
        ('[mine]\nbased_on = "demo"\nstarts = ["vidoe"]', "'vidoe'.*'video'"),
        ('[mine]\nbased_on = "demo"\nhu_window = [400, -1000]', "hu_window is"),
        ('[mine]\nbased_on = "demo"\nhu_window = ["low", "high"]', "hu_window is"),
        ("[mine]\nframes = 3", "mine. lacks about"),
        ('[demo]\nbased_on = "study"', "the package has a preset 'demo'"),
        ("frames = 3", "frames stands in no table"),
        ("[mine", "cannot be read as TOML"),
    ],
)
def test_what_is_wrong_with_a_preset_of_the_readers_own_is_told_with_its_file(write, text, message):
    with pytest.raises(SettingError, match=f"my.toml: .*{message}"):
        load_preset(write(text))


def test_an_hu_window_is_two_numbers_or_their_text():
    assert parse_hu_window("-1000, 400") == parse_hu_window([-1000.0, 400]) == load_preset("paper").hu_window
    assert parse_hu_window("-160.5,240") == (-160.5, 240)
    for wrong in ("400,-1000", "1", "a,b", "1,2,3", "nan,1", (0, float("inf")), 3, ""):
        with pytest.raises(SettingError, match="hu_window is .*-1000,400"):
            parse_hu_window(wrong)
