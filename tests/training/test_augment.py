import numpy as np
import pytest
import torch

from musictag.training.augment import FILTER_POINTS, apply_gains, draw_gains

N_CLIPS, N_FRAMES, N_MELS = 12, 40, 16


def batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 1 + torch.rand(N_CLIPS, N_FRAMES, N_MELS, generator=generator)


def filtered(log_mel, std_db, rng):
    return apply_gains(log_mel, draw_gains(len(log_mel), log_mel.shape[2], std_db, rng))


def rng(seed=0):
    return np.random.default_rng(seed)


def gains_of(before, after):
    """Return the change of power in dB, (B, T, M)."""
    before, after = before.double(), after.double()
    return 10 * ((10**after - 1) / (10**before - 1)).log10()


def test_filter_gains_are_piecewise_linear_over_bands():
    log_mel = batch()
    decibels = gains_of(log_mel, filtered(log_mel, 6.0, rng(2)))
    curves = decibels.mean(dim=1, keepdim=True)
    torch.testing.assert_close(decibels, curves.expand_as(decibels), rtol=0, atol=1e-3)  # same in all frames
    points = rng(2).normal(0, 6.0, (N_CLIPS, FILTER_POINTS))
    torch.testing.assert_close(curves[:, 0, [0, -1]].numpy(), points[:, [0, -1]], rtol=0, atol=1e-3, check_dtype=False)
    # 16 bands, 6 points: every third band is a point.
    torch.testing.assert_close(curves[:, 0, 3::3].numpy(), points[:, 1:], rtol=0, atol=1e-3, check_dtype=False)
    torch.testing.assert_close(curves[:, 0, 1].numpy(), (2 * points[:, 0] + points[:, 1]) / 3, rtol=0, atol=1e-3)
    assert torch.equal(log_mel, batch())


def test_filter_gains_have_the_given_deviation_and_keep_silence():
    log_mel = torch.ones(2000, 3, 12)
    log_mel[:, 1] = 0
    changed = filtered(log_mel, 3.0, rng())
    assert (changed[:, 1] == 0).all()
    decibels = gains_of(log_mel[:, ::2], changed[:, ::2])
    assert decibels.mean().abs() < 0.1
    assert decibels[..., [0, -1]].std() == pytest.approx(3.0, rel=0.05)


@pytest.mark.parametrize("n_mels", [1, 2, 5, 6, 96])
def test_gains_are_interpolated_for_any_number_of_bands(n_mels):
    gains = draw_gains(3, n_mels, 2.0, rng(4))
    assert (gains.shape, gains.dtype) == ((3, n_mels), torch.float32)
    points = rng(4).normal(0, 2.0, (3, FILTER_POINTS))
    bands = np.linspace(0, FILTER_POINTS - 1, n_mels)
    expected = [np.interp(bands, np.arange(FILTER_POINTS), of_clip) for of_clip in points]
    np.testing.assert_allclose(10 * gains.log10(), expected, atol=1e-5)


def test_same_generator_gives_the_same_gains():
    first, again, other = (draw_gains(4, 8, 3.0, rng(seed)) for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
