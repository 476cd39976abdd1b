import numpy as np
import pytest
import torch

from musictag.training.augment import FILTER_POINTS, augmented, filter_augment, mixup, spec_augment
from musictag.training.config import TrainingConfig

N_CLIPS, N_FRAMES, N_MELS, N_TAGS = 12, 40, 16, 3


def batch(seed=0):
    """No number of a clip is 0 before it is masked."""
    generator = torch.Generator().manual_seed(seed)
    log_mel = 1 + torch.rand(N_CLIPS, N_FRAMES, N_MELS, generator=generator)
    return log_mel, torch.randint(2, (N_CLIPS, N_TAGS), generator=generator).float()


def rng(seed=0):
    return np.random.default_rng(seed)


def silenced(clip):
    """The frames and the bands that a mask took."""
    silent = clip == 0
    return silent.all(dim=1).nonzero().flatten().tolist(), silent.all(dim=0).nonzero().flatten().tolist()


def is_one_run(places):
    return places == list(range(places[0], places[0] + len(places))) if places else True


def test_without_settings_batches_pass_as_they_are():
    batches = [batch(0), batch(1)]
    passed = list(augmented(batches, TrainingConfig(), rng()))
    assert len(passed) == 2
    for given, got in zip(batches, passed, strict=True):
        assert given[0] is got[0]
        assert given[1] is got[1]


def test_mixup_blends_each_clip_and_its_targets_with_one_other_by_one_share():
    log_mel, targets = batch()
    blended, shares = mixup(log_mel, targets, 0.4, rng(3))
    share = rng(3).beta(0.4, 0.4)
    assert 0.05 < share < 0.95
    others = set()
    for n in range(N_CLIPS):
        (other,) = [
            m for m in range(N_CLIPS) if torch.allclose(blended[n], share * log_mel[n] + (1 - share) * log_mel[m])
        ]
        torch.testing.assert_close(shares[n], share * targets[n] + (1 - share) * targets[other], check_dtype=False)
        others.add(other)
    assert others == set(range(N_CLIPS))
    assert blended.dtype == shares.dtype == torch.float32


def test_mixup_keeps_means_and_its_input():
    log_mel, targets = batch()
    blended, shares = mixup(log_mel, targets, 1.0, rng())
    torch.testing.assert_close(blended.mean(dim=0), log_mel.mean(dim=0))
    torch.testing.assert_close(shares.mean(dim=0), targets.mean(dim=0))
    assert torch.equal(log_mel, batch()[0])
    assert torch.equal(targets, batch()[1])


def gains(before, after):
    """By how much the power of each clip's bands is changed, dB: (B, T, M)."""
    before, after = before.double(), after.double()
    return 10 * ((10**after - 1) / (10**before - 1)).log10()


def test_a_filter_changes_the_levels_of_bands_by_a_curve_of_straight_lines():
    log_mel, _ = batch()
    decibels = gains(log_mel, filter_augment(log_mel, 6.0, rng(2)))
    curves = decibels.mean(dim=1, keepdim=True)
    torch.testing.assert_close(decibels, curves.expand_as(decibels), rtol=0, atol=1e-3)  # all frames alike
    points = rng(2).normal(0, 6.0, (N_CLIPS, FILTER_POINTS))
    torch.testing.assert_close(curves[:, 0, [0, -1]].numpy(), points[:, [0, -1]], rtol=0, atol=1e-3, check_dtype=False)
    # 16 bands, 6 points: every third band is one.
    torch.testing.assert_close(curves[:, 0, 3::3].numpy(), points[:, 1:], rtol=0, atol=1e-3, check_dtype=False)
    torch.testing.assert_close(curves[:, 0, 1].numpy(), (2 * points[:, 0] + points[:, 1]) / 3, rtol=0, atol=1e-3)
    assert torch.equal(log_mel, batch()[0])


def test_filters_are_as_strong_as_asked_and_leave_silence():
    log_mel = torch.ones(2000, 3, 12)
    log_mel[:, 1] = 0
    filtered = filter_augment(log_mel, 3.0, rng())
    assert (filtered[:, 1] == 0).all()
    decibels = gains(log_mel[:, ::2], filtered[:, ::2])
    assert decibels.mean().abs() < 0.1
    assert decibels[..., [0, -1]].std() == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize(("n_bands", "n_frames"), [(4, 0), (0, 9), (4, 9), (100, 0), (0, 100)])
def test_a_run_of_bands_and_a_run_of_frames_are_silenced(n_bands, n_frames):
    log_mel, _ = batch()
    masked = spec_augment(log_mel, n_bands, n_frames, rng(1))
    lengths = set()
    for clip, before in zip(masked, log_mel, strict=True):
        frames, bands = silenced(clip)
        if len(frames) < N_FRAMES and len(bands) < N_MELS:  # else all is silent, and nothing tells the two apart
            assert len(bands) <= n_bands
            assert len(frames) <= n_frames
            assert is_one_run(bands)
            assert is_one_run(frames)
            kept = torch.ones_like(before)
            kept[frames] = 0
            kept[:, bands] = 0
            assert torch.equal(clip, before * kept)
            lengths |= {("bands", len(bands)), ("frames", len(frames))}
    assert len(lengths) > 4  # each clip has its own
    assert torch.equal(log_mel, batch()[0])


def test_runs_have_every_length_and_place():
    log_mel = torch.ones(2000, 5, 4)
    seen = {tuple(map(tuple, silenced(clip))) for clip in spec_augment(log_mel, 2, 0, rng())}
    assert {bands for _, bands in seen} == {(), (0,), (1,), (2,), (3,), (0, 1), (1, 2), (2, 3)}
    seen = {tuple(map(tuple, silenced(clip))) for clip in spec_augment(log_mel, 0, 2, rng())}
    assert {frames for frames, _ in seen} == {(), (0,), (1,), (2,), (3,), (4,), (0, 1), (1, 2), (2, 3), (3, 4)}


def test_the_configuration_asks_for_what_is_done():
    log_mel, targets = batch()
    only_mixup = next(augmented([(log_mel, targets)], TrainingConfig(mixup=0.4), rng()))
    for got, expected in zip(only_mixup, mixup(log_mel, targets, 0.4, rng()), strict=True):
        assert torch.equal(got, expected)
    config = TrainingConfig(mask_bands=4, mask_frames=9)
    masked, same = next(augmented([(log_mel, targets)], config, rng()))
    assert torch.equal(masked, spec_augment(log_mel, 4, 9, rng()))
    assert same is targets
    filtered, same = next(augmented([(log_mel, targets)], TrainingConfig(filter_db=4.0), rng()))
    assert torch.equal(filtered, filter_augment(log_mel, 4.0, rng()))
    assert same is targets


def test_the_same_generator_gives_the_same_batches_and_another_gives_others():
    config = TrainingConfig(mixup=0.4, mask_bands=4, mask_frames=9)
    first, again, other = (list(augmented([batch(0), batch(1)], config, rng(seed))) for seed in (5, 5, 6))
    for some, same, others in zip(first, again, other, strict=True):
        assert torch.equal(some[0], same[0])
        assert torch.equal(some[1], same[1])
        assert not torch.equal(some[0], others[0])
