import dataclasses
import math

import pytest

from musictag.errors import UsageError
from musictag.training.config import TrainingConfig, body_rate_at, learning_rate_at


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
        {"body_rate": -0.1},
        {"body_rate": math.inf},
        {"filter_db": -1.0},
        {"filter_db": math.nan},
    ],
    ids=str,
)
def test_wrong_setting_is_named(fields: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=f"TrainingConfig.{next(iter(fields))} is"):
        TrainingConfig(**fields)


def test_workers_divide_a_batch_evenly() -> None:
    config = TrainingConfig(batch_size=64)
    assert config.per_worker(1) == config
    assert config.per_worker(4) == dataclasses.replace(config, batch_size=16)


@pytest.mark.parametrize(("batch_size", "n_workers", "nearest"), [(64, 3, 63), (8, 8, 16), (4, 5, 10), (65, 2, 64)])
def test_batch_that_workers_cannot_divide_is_refused(batch_size: int, n_workers: int, nearest: int) -> None:
    with pytest.raises(UsageError, match=f"choose another --batch-size, such as {nearest},"):
        TrainingConfig(batch_size=batch_size).per_worker(n_workers)


def test_learning_rate_rises_then_falls() -> None:
    config = TrainingConfig(learning_rate=0.1, warmup=0.2)
    assert learning_rate_at(0.1, config) == pytest.approx(0.05)
    assert learning_rate_at(0.2, config) == pytest.approx(0.1)
    assert learning_rate_at(0.6, config) == pytest.approx(0.05)
    assert learning_rate_at(1.0, config) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_at(1.3, config) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate_at(0.0, TrainingConfig(learning_rate=0.1, warmup=0.0)) == pytest.approx(0.1)


def test_body_rate_starts_at_its_peak_after_the_head_epochs() -> None:
    config = TrainingConfig(epochs=10, learning_rate=0.1, head_epochs=2, body_rate=0.5)
    assert body_rate_at(0.1, config) == 0.0
    assert body_rate_at(2 / 10, config) == 0.0
    assert body_rate_at(0.2001, config) == pytest.approx(0.05, rel=1e-4)
    assert body_rate_at(0.6, config) == pytest.approx(0.025)
    assert body_rate_at(1.0, config) == pytest.approx(0.0, abs=1e-12)
    assert body_rate_at(1.3, config) == pytest.approx(0.0, abs=1e-12)
    assert body_rate_at(1.3, dataclasses.replace(config, head_epochs=10)) == 0.0


@pytest.mark.parametrize("progress", [0.01, 0.05, 0.3, 1.0])
def test_body_rate_is_a_share_of_the_head_rate_without_head_epochs(progress: float) -> None:
    config = TrainingConfig(body_rate=0.5)
    assert body_rate_at(progress, config) == 0.5 * learning_rate_at(progress, config)
    assert body_rate_at(progress, TrainingConfig()) == learning_rate_at(progress, TrainingConfig())
