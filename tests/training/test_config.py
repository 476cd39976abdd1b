import dataclasses
import math

import pytest

from musictag.errors import UsageError
from musictag.training.config import PLATEAU_EPOCHS, TrainingConfig, body_rate_at, learning_rate_at


def history(*val_losses: float) -> list[dict[str, float]]:
    return [{"epoch": epoch, "val_loss": val_loss} for epoch, val_loss in enumerate(val_losses, start=1)]


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 0},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"weight_decay": -1.0},
        {"clips_per_track": 0},
        {"shuffle_clips": 0},
        {"patience": 0},
        {"warmup": 1.0},
        {"warmup": math.nan},
        {"seed": -1},
        {"head_epochs": -1},
        {"head_epochs": 2, "schedule": "plateau"},
        {"body_rate": -0.1},
        {"body_rate": math.inf},
        {"averaging": -0.1},
        {"averaging": 1.0},
        {"averaging": math.nan},
        {"smoothing": -0.1},
        {"smoothing": 1.0},
        {"class_weight": -0.5},
        {"class_weight": math.inf},
        {"mixup": -0.2},
        {"filter_db": -1.0},
        {"mixup": math.nan},
        {"mask_bands": -1},
        {"mask_frames": -1},
        {"schedule": "linear"},
        {"schedule": ""},
        {"loss": "hinge"},
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"TrainingConfig.{next(iter(fields))} is"):
        TrainingConfig(**fields)


def test_a_wrong_name_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"loss is 'hinge': it is one of bce, focal, asymmetric"):
        TrainingConfig(loss="hinge")
    with pytest.raises(UsageError, match=r"schedule is 'linear': it is one of cosine, plateau"):
        TrainingConfig(schedule="linear")


@pytest.mark.parametrize(
    "fields",
    [{"averaging": 0.999}, {"smoothing": 0.1}, {"class_weight": 0.5}, {"mixup": 0.4}, {"mask_bands": 16},
     {"mask_frames": 30}, {"schedule": "plateau"}, {"loss": "focal"}, {"loss": "asymmetric"}],
    ids=str,
)  # fmt: skip
def test_a_right_setting_is_taken(fields: dict[str, float]) -> None:
    assert dataclasses.asdict(TrainingConfig(**fields)).items() >= fields.items()


def test_the_learning_rate_rises_then_falls() -> None:
    config = TrainingConfig(learning_rate=0.1, warmup=0.2)
    assert learning_rate_at(0.1, config) == pytest.approx(0.05)
    assert learning_rate_at(0.2, config) == pytest.approx(0.1)
    assert learning_rate_at(0.6, config) == pytest.approx(0.05)
    assert learning_rate_at(1.0, config) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_at(1.3, config) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_at(0.0, TrainingConfig(learning_rate=0.1, warmup=0.0)) == pytest.approx(0.1)


def test_the_cosine_does_not_look_at_the_validation_loss() -> None:
    config = TrainingConfig()
    assert learning_rate_at(0.5, config, history(1, 1, 1, 1, 1)) == learning_rate_at(0.5, config)


@pytest.mark.parametrize(
    ("val_losses", "halvings"),
    [
        ((), 0),
        ((1.0,), 0),
        ((1.0, 1.0), 0),
        ((1.0, 1.0, 1.0), 1),
        ((1.0, 1.1, 1.2, 1.3), 1),
        ((1.0, 1.0, 1.0, 1.0, 1.0), 2),
        ((1.0, 1.0, 0.9, 0.9), 0),  # better: the count begins again
        ((1.0, 1.0, 0.9, 0.9, 0.95), 1),
        ((1.0, 1.0, 1.0, 0.5), 1),  # what is halved stays so
        ((1.0, 1.0, 1.0, 0.5, 0.6, 0.6), 2),
        ((0.5, 1.0, 0.9, 0.8, 0.7), 2),  # better than the last is not better than the best
    ],
    ids=str,
)
def test_a_plateau_halves_the_learning_rate_and_again(val_losses: tuple[float, ...], halvings: int) -> None:
    assert PLATEAU_EPOCHS == 2
    config = TrainingConfig(schedule="plateau", learning_rate=0.1)
    for progress in (0.05, 0.5, 1.0):
        assert learning_rate_at(progress, config, history(*val_losses)) == 0.1 / 2**halvings


def test_a_plateau_schedule_is_warmed_up_too() -> None:
    config = TrainingConfig(schedule="plateau", learning_rate=0.1, warmup=0.2)
    assert learning_rate_at(0.05, config) == pytest.approx(0.025)
    assert learning_rate_at(0.05, config, history(1, 1, 1)) == pytest.approx(0.025)


def test_on_a_plateau_the_body_slows_down_with_the_head() -> None:
    config = TrainingConfig(schedule="plateau", learning_rate=0.1, body_rate=0.5)
    assert body_rate_at(0.5, config, history(1, 1, 1)) == pytest.approx(0.025)


def test_the_body_sets_in_at_its_peak_after_the_head_epochs() -> None:
    config = TrainingConfig(epochs=10, learning_rate=0.1, head_epochs=2, body_rate=0.5)
    assert body_rate_at(0.1, config) == 0.0
    assert body_rate_at(2 / 10, config) == 0.0
    assert body_rate_at(0.2001, config) == pytest.approx(0.05, rel=1e-4)
    assert body_rate_at(0.6, config) == pytest.approx(0.025)
    assert body_rate_at(1.0, config) == pytest.approx(0.0, abs=1e-12)
    assert body_rate_at(1.3, config) == pytest.approx(0.0, abs=1e-12)
    assert body_rate_at(1.3, dataclasses.replace(config, head_epochs=10)) == 0.0


@pytest.mark.parametrize("progress", [0.01, 0.05, 0.3, 1.0])
def test_without_head_epochs_the_body_follows_the_head(progress: float) -> None:
    config = TrainingConfig(body_rate=0.5)
    assert body_rate_at(progress, config) == 0.5 * learning_rate_at(progress, config)
    assert body_rate_at(progress, TrainingConfig()) == learning_rate_at(progress, TrainingConfig())
