"""The training loop: Keras's rules by hand-worked values, and that it learns, repeats and freezes."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from viptt_core.constants import ROTATION_DEGREES, TB_TRAIN_COUNTS
from viptt_core.errors import SettingError, TrainingError
from viptt_core.model import ViPTTNet
from viptt_core.presets import load_preset
from viptt_core.splits import Split
from viptt_core.training import Task, Trainer
from viptt_core.training.device import Engine
from viptt_core.training.feed import rotate_clips
from viptt_core.training.inference import gather_features, predict_logits
from viptt_core.training.keras_rules import (
    EarlyStopping,
    ReduceOnPlateau,
    balanced_class_weights,
    epoch_batches,
    weighted_loss,
)

CPU = Engine(device="cpu", precision="fp32")
STAGE = dataclasses.replace(
    load_preset("corrected").finetune,
    epochs=4,
    batch_size=5,
    learning_rate=0.01,
    rotate=False,
    class_weights=False,
    pixel_range="0..1",
)
SPLIT = Split(np.arange(10), np.arange(10, 15), np.arange(15, 20))


def small_model(seed=0, classes=2):
    generator = torch.Generator().manual_seed(seed)
    return ViPTTNet(classes, backbone="small", hidden_size=8, feature_size=8, generator=generator)


# --- Keras's loss weighting -----------------------------------------------------------------


def test_weighted_loss_of_uniform_outputs_is_the_value_keras_gives():
    weights = torch.tensor([1.0, 2.0, 6.0])
    loss = weighted_loss(torch.zeros(3, 3), torch.tensor([0, 1, 2]), weights)
    assert float(loss) == pytest.approx(3.2958, abs=1e-4)  # 9 ln 3 / 3
    theirs = torch.nn.functional.cross_entropy(torch.zeros(3, 3), torch.tensor([0, 1, 2]), weights)
    assert float(theirs) == pytest.approx(1.0986, abs=1e-4)  # what PyTorch's own weighting would give


def test_class_weights_of_the_authors_training_part():
    counts = (335, 180, 81, 80, 56)
    labels = np.repeat(np.arange(5), counts)
    np.testing.assert_allclose(
        balanced_class_weights(labels, np.zeros(5, int)), [0.43701, 0.81333, 1.80741, 1.83, 2.61429], atol=5e-6
    )
    assert sum(counts) == 732 and sum(TB_TRAIN_COUNTS) == 917


# --- Keras's early stopping and plateau rules -------------------------------------------------


def test_early_stopping_stops_when_the_wait_reaches_the_patience():
    stopping = EarlyStopping(patience=3)
    losses = [1.0, 0.9, 0.9, 0.95, 0.91, 0.5]  # equal is no improvement
    assert [stopping.update(epoch, loss) for epoch, loss in enumerate(losses[:5])] == [False] * 4 + [True]
    assert stopping.best == 0.9
    stopping = EarlyStopping(patience=0)  # never after the first epoch
    assert [stopping.update(epoch, loss) for epoch, loss in enumerate([1.0, 2.0])] == [False, True]


def test_plateau_acts_at_the_patience_and_counts_anew():
    plateau = ReduceOnPlateau(1.0, patience=2, factor=0.1)
    rates = [plateau.update(loss) for loss in [1.0, 1.0, 1.0, 1.0, 1.0, 0.5]]
    assert rates == pytest.approx([1.0, 1.0, 0.1, 0.1, 0.01, 0.01])


def test_plateau_margin_is_absolute():
    plateau = ReduceOnPlateau(1.0, patience=1, factor=0.1)
    assert plateau.update(0.01) == 1.0
    assert plateau.update(0.00991) == pytest.approx(0.1)  # 9e-5 better: less than the margin of 1e-4
    assert plateau.update(0.0098) == pytest.approx(0.1)  # 2e-4 better


# --- Batches ------------------------------------------------------------------------------------


def test_samples_are_shuffled_into_new_batches_and_all_seen():
    rng = np.random.default_rng(0)
    first, second = (epoch_batches(np.arange(7), 2, "samples", rng) for _ in range(2))
    assert [len(batch) for batch in first] == [2, 2, 2, 1]
    assert sorted(np.concatenate(first)) == list(range(7))
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))


def test_fixed_batches_keep_their_members():
    rng = np.random.default_rng(0)
    orders = [[tuple(batch) for batch in epoch_batches(np.arange(6), 2, "batches", rng)] for _ in range(4)]
    assert all(set(order) == {(0, 1), (2, 3), (4, 5)} for order in orders)
    assert len(set(map(tuple, orders))) > 1


def test_each_head_gives_as_many_batches_as_the_largest_in_turn():
    indices, heads = np.arange(10, 19), np.array([0, 1, 0, 0, 1, 0, 0, 0, 0])  # seven and two
    batches = epoch_batches(indices, 2, "samples", np.random.default_rng(0), heads)
    assert [set(heads[batch - 10]) for batch in batches] == [{0}, {1}] * 4
    assert sorted(np.concatenate(batches[::2])) == [10, 12, 13, 15, 16, 17, 18]
    assert all(sorted(batch) == [11, 14] for batch in batches[1::2])


def test_class_weights_balance_within_each_head():
    weights = balanced_class_weights(np.array([0, 0, 0, 1, 2, 3, 3]), np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(weights, [4 / 6, 4 / 2, 3 / 2, 3 / 4])


# --- Heads and features -----------------------------------------------------------------------------

HEADS = np.array([0, 0, 1, 1, 1])
FROZEN = dataclasses.replace(STAGE, epochs=3, batch_size=4, freeze_backbone=True, freeze_stem=True)


def test_two_heads_train_as_two_last_layers_do(make_clip_set):
    clips, model = make_clip_set(n=40, classes=5), small_model(classes=5)
    split = Split(np.arange(24), np.arange(24, 40), np.arange(24, 40))
    trunk, layers = copy.deepcopy(torch.nn.ModuleList([model.temporal, model.feature])), torch.nn.ModuleList()
    for head in (0, 1):
        layers.append(torch.nn.Linear(8, int((head == HEADS).sum())))
        layers[head].weight.data = model.classifier.weight.data[head == HEADS].clone()
        layers[head].bias.data = model.classifier.bias.data[head == HEADS].clone()
    stage = dataclasses.replace(FROZEN, optimiser="sgd", learning_rate=0.3)  # adaptive steps would amplify rounding
    trainer = Trainer(model, Task(clips, split, stage, heads=HEADS), engine=CPU)
    kept = torch.from_numpy(trainer.features.array)

    def loss_of(batch, head):
        summary = trunk[0].summary(kept[batch])
        own = torch.from_numpy(clips.labels[batch] - 2 * head)
        return torch.nn.functional.cross_entropy(layers[head](torch.relu(trunk[1](summary))), own)

    optimiser = torch.optim.SGD([*trunk.parameters(), *layers.parameters()], lr=0.3)
    rng, losses = np.random.default_rng(0), []
    for _ in range(stage.epochs):
        for batch in epoch_batches(split.train, 4, "samples", rng, HEADS[clips.labels[split.train]]):
            optimiser.zero_grad()
            loss_of(batch, HEADS[clips.labels[batch[0]]]).backward()
            optimiser.step()
        with torch.no_grad():
            of_heads = [HEADS[clips.labels[split.validation]] == head for head in (0, 1)]
            losses.append(np.mean([loss_of(split.validation[mine], head) for head, mine in enumerate(of_heads)]))
    history = trainer.run()
    assert [e["val_loss"] for e in history.epochs] == pytest.approx(losses, rel=1e-5)
    assert trainer.steps == trainer.steps_in_epoch * 3 == 24 and losses[-1] < losses[0]
    torch.testing.assert_close(model.feature.weight, trunk[1].weight, atol=1e-5, rtol=1e-4)
    for head in (0, 1):
        torch.testing.assert_close(model.classifier.weight[head == HEADS], layers[head].weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("rotate", [False, True])
def test_features_that_are_given_train_as_those_that_are_gathered(make_clip_set, monkeypatch, rotate):
    clips, stage, runs = make_clip_set(), dataclasses.replace(FROZEN, rotate=rotate), []
    turned = np.arange(15)  # more than train
    given = gather_features(small_model(), clips, stage, turned, precision="fp32")
    assert given.array.shape[0] == (20 + 6 * 15 if rotate else 20)
    for features in (None, given):
        if features is not None:
            monkeypatch.setattr(ViPTTNet, "features", lambda *_: pytest.fail("computed again"))
        model = small_model()
        trainer = Trainer(model, Task(clips, SPLIT, stage, features=features), engine=CPU)
        history = trainer.run()
        runs.append(([e["val_loss"] for e in history.epochs], model.state_dict(), trainer.predict(SPLIT.test)))
    assert runs[0][0] == runs[1][0] and np.array_equal(runs[0][2], runs[1][2]) and runs[0][2].shape == (5, 2)
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_turned_features_are_those_of_turned_clips(make_clip_set):
    clips, model = make_clip_set(n=4, size=32), small_model()
    found = gather_features(model, clips, dataclasses.replace(FROZEN, rotate=True), np.array([3, 1]), precision="fp32")
    pixels = torch.from_numpy(clips.clips).float() / 255
    for number, degrees in enumerate((0, *ROTATION_DEGREES)):
        with torch.no_grad():
            expected = model.eval().features(rotate_clips(pixels, torch.full((4,), float(degrees))))
        rows = found.of(np.array([1, 3]), number)
        torch.testing.assert_close(torch.from_numpy(found.array[rows]), expected[[1, 3]], atol=1e-4, rtol=1e-4)
    with pytest.raises(SettingError, match="features of a clip are not there"):
        found.of(np.array([0]), 1)


def test_features_that_would_change_and_heads_of_other_classes_are_refused(make_clip_set):
    features = gather_features(small_model(), make_clip_set(), FROZEN, precision="fp32")
    with pytest.raises(SettingError, match="change while it is trained"):
        Task(make_clip_set(), SPLIT, STAGE, features=features)
    with pytest.raises(SettingError, match="5 classes have a head, 2 have a name"):
        Task(make_clip_set(), SPLIT, STAGE, heads=HEADS)


# --- The loop -------------------------------------------------------------------------------------


def test_fit_learns_a_difference_in_brightness(make_clip_set):
    clips, model = make_clip_set(), small_model()
    history = Trainer(model, Task(clips, SPLIT, dataclasses.replace(STAGE, epochs=15)), engine=CPU).run()
    predicted = predict_logits(model, clips.clips, SPLIT.test, pixel_range="0..1").argmax(axis=1)
    assert (predicted == clips.labels[SPLIT.test]).all()
    assert history.epochs[-1]["loss"] < history.epochs[0]["loss"]


def test_the_same_seed_gives_the_same_numbers_bit_for_bit(make_clip_set):
    stage = dataclasses.replace(STAGE, rotate=True)
    runs = []
    for seed in (0, 0, 1):
        model = small_model()
        history = Trainer(model, Task(make_clip_set(), SPLIT, stage, seed), engine=CPU).run()
        losses = [(e["loss"], e["val_loss"], e["val_kappa"]) for e in history.epochs]
        runs.append((losses, {k: v.clone() for k, v in model.state_dict().items()}))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])
    assert runs[0][0] != runs[2][0]


def test_the_weights_of_the_lowest_validation_loss_are_kept(make_clip_set):
    clips, model = make_clip_set(), small_model()
    stage = dataclasses.replace(STAGE, epochs=8, learning_rate=0.3, plateau_patience=99)
    history = Trainer(model, Task(clips, SPLIT, stage), engine=CPU).run()
    losses = [e["val_loss"] for e in history.epochs]
    assert history.best_epoch == 1 + int(np.argmin(losses))
    logits = torch.from_numpy(predict_logits(model, clips.clips, SPLIT.validation, pixel_range="0..1"))
    kept = torch.nn.functional.cross_entropy(logits, torch.from_numpy(clips.labels[SPLIT.validation]))
    assert float(kept) == pytest.approx(min(losses), abs=1e-6)


def test_training_ends_early_on_a_plateau(make_clip_set):
    stage = dataclasses.replace(STAGE, epochs=50, learning_rate=1e-12, stop_patience=2, plateau_patience=1)
    history = Trainer(small_model(), Task(make_clip_set(), SPLIT, stage), engine=CPU).run()
    assert history.stopped_early and len(history.epochs) < 50
    assert history.epochs[-1]["learning_rate"] < 1e-12


def test_a_frozen_backbone_stays_and_the_stem_before_it_learns(make_clip_set):
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Trainer(model, Task(make_clip_set(), SPLIT, dataclasses.replace(STAGE, freeze_backbone=True)), engine=CPU).run()
    after = model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in after if n.startswith("backbone"))
    assert not torch.equal(before["stem.weight"], after["stem.weight"])


def test_the_test_part_is_not_touched(make_clip_set):
    clips = make_clip_set()
    spoiled = clips.clips.copy()
    spoiled[SPLIT.test] = 0
    logs = [
        Trainer(small_model(), Task(dataclasses.replace(clips, clips=array), SPLIT, STAGE), engine=CPU).run().epochs
        for array in (clips.clips, spoiled)
    ]
    assert [e["val_loss"] for e in logs[0]] == [e["val_loss"] for e in logs[1]]


def test_class_weights_change_training_and_leave_the_validation_loss_unweighted(make_clip_set):
    clips = make_clip_set()
    split = Split(np.array([0, 1, 2, 4, 6, 8]), SPLIT.validation, SPLIT.test)  # five of class 0, one of class 1
    logs = {}
    for weighted in (False, True):
        stage = dataclasses.replace(STAGE, class_weights=weighted, epochs=1, learning_rate=1e-12, batch_size=6)
        logs[weighted] = Trainer(small_model(), Task(clips, split, stage), engine=CPU).run().epochs[0]
    assert logs[True]["val_loss"] == pytest.approx(logs[False]["val_loss"], abs=1e-6)
    assert abs(logs[True]["loss"] - logs[False]["loss"]) > 1e-4


def test_a_loss_that_is_not_finite_stops_with_a_remedy(make_clip_set):
    stage = dataclasses.replace(STAGE, optimiser="sgd", learning_rate=1e30)
    with pytest.raises(TrainingError, match="not finite.*learning rate"):
        Trainer(small_model(), Task(make_clip_set(), SPLIT, stage), engine=CPU).run()


@pytest.mark.parametrize("field", ["optimiser", "pixel_range", "shuffle"])
def test_unknown_settings_are_refused(make_clip_set, field):
    with pytest.raises(SettingError, match=field):
        Trainer(
            small_model(), Task(make_clip_set(), SPLIT, dataclasses.replace(STAGE, **{field: "x"})), engine=CPU
        ).run()


# --- The paper's own size ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("stage_name, batch", [("pretrain", 1), ("finetune", 2)])
def test_one_full_size_step_of_the_paper_preset(make_clip_set, stage_name, batch):
    preset = load_preset("paper")
    stage = dataclasses.replace(getattr(preset, stage_name), epochs=1, batch_size=batch)
    clips = make_clip_set(n=batch + 1, frames=preset.frames, size=preset.size)
    model = ViPTTNet(2, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    split = Split(np.arange(batch), np.array([batch]), np.array([batch]))
    history = Trainer(model, Task(clips, split, stage), engine=CPU).run()
    assert np.isfinite(history.epochs[0]["loss"])
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert ("backbone.0.weight" in moved) == (stage_name == "finetune")
    assert "stem.weight" in moved and "temporal.weight_hh_l0" in moved
