import numpy as np
import pytest
import torch

from musictag.training.augment import FILTER_POINTS, augment, filter_augment
from musictag.training.config import TrainingConfig

N_CLIPS, N_FRAMES, N_MELS, N_TAGS = 12, 40, 16, 3


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    log_mel = 1 + torch.rand(N_CLIPS, N_FRAMES, N_MELS, generator=generator)
    return log_mel, torch.randint(2, (N_CLIPS, N_TAGS), generator=generator).float()


def rng(seed=0):
    return np.random.default_rng(seed)


def test_batches_are_unchanged_by_default():
    batches = [batch(0), batch(1)]
    passed = list(augment(batches, TrainingConfig(), rng()))
    assert len(passed) == 2
    for given, got in zip(batches, passed, strict=True):
        assert given[0] is got[0]
        assert given[1] is got[1]


def gains(before, after):
    """Return the change of power in dB, (B, T, M)."""
    before, after = before.double(), after.double()
    return 10 * ((10**after - 1) / (10**before - 1)).log10()


def test_filter_gains_are_piecewise_linear_over_bands():
    log_mel, _ = batch()
    decibels = gains(log_mel, filter_augment(log_mel, 6.0, rng(2)))
    curves = decibels.mean(dim=1, keepdim=True)
    torch.testing.assert_close(decibels, curves.expand_as(decibels), rtol=0, atol=1e-3)  # same in all frames
    points = rng(2).normal(0, 6.0, (N_CLIPS, FILTER_POINTS))
    torch.testing.assert_close(curves[:, 0, [0, -1]].numpy(), points[:, [0, -1]], rtol=0, atol=1e-3, check_dtype=False)
    # 16 bands, 6 points: every third band is a point.
    torch.testing.assert_close(curves[:, 0, 3::3].numpy(), points[:, 1:], rtol=0, atol=1e-3, check_dtype=False)
    torch.testing.assert_close(curves[:, 0, 1].numpy(), (2 * points[:, 0] + points[:, 1]) / 3, rtol=0, atol=1e-3)
    assert torch.equal(log_mel, batch()[0])


def test_filter_gains_have_the_given_deviation_and_keep_silence():
    log_mel = torch.ones(2000, 3, 12)
    log_mel[:, 1] = 0
    filtered = filter_augment(log_mel, 3.0, rng())
    assert (filtered[:, 1] == 0).all()
    decibels = gains(log_mel[:, ::2], filtered[:, ::2])
    assert decibels.mean().abs() < 0.1
    assert decibels[..., [0, -1]].std() == pytest.approx(3.0, rel=0.05)


def test_augment_filters_by_the_configured_deviation():
    log_mel, targets = batch()
    filtered, same = next(augment([(log_mel, targets)], TrainingConfig(filter_db=4.0), rng()))
    assert torch.equal(filtered, filter_augment(log_mel, 4.0, rng()))
    assert same is targets


def test_same_generator_gives_the_same_batches():
    config = TrainingConfig(filter_db=4.0)
    first, again, other = (list(augment([batch(0), batch(1)], config, rng(seed))) for seed in (5, 5, 6))
    for some, same, others in zip(first, again, other, strict=True):
        assert torch.equal(some[0], same[0])
        assert torch.equal(some[1], same[1])
        assert not torch.equal(some[0], others[0])
