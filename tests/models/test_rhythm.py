import inspect

import pytest
import torch
from torch import Tensor

from musictag.models.rhythm import (
    LONGEST_LAG,
    MIN_ENERGY,
    N_LAGS,
    SHORTEST_LAG,
    RhythmPath,
    autocorrelation,
    log_lags,
)


def by_definition(curve: Tensor, longest_lag: int) -> Tensor:
    x = (curve.double() - curve.double().mean()).tolist()
    n = len(x)
    means = [sum(x[i] * x[i + lag] for i in range(n - lag)) / max(n - lag, n // 4, 1) for lag in range(longest_lag + 1)]
    return torch.tensor([mean / (means[0] + MIN_ENERGY) for mean in means])


def clicks(period: int, n_frames: int) -> Tensor:
    curve = torch.zeros(n_frames)
    curve[::period] = 1.0
    return curve


def eighths(beat: float, second: float, n_frames: int = 1870) -> Tensor:
    """Strokes on every beat and again a share of it later, as soft as the beat is long."""
    time = torch.arange(n_frames, dtype=torch.float64)
    curve = torch.zeros(n_frames, dtype=torch.float64)
    for stroke in (0.0, second):
        away = (time / beat - stroke + 0.5) % 1 - 0.5  # in beats
        curve += torch.exp(-0.5 * (away * 20) ** 2)
    return curve.float()


@pytest.mark.parametrize("n_frames", [1, 20, 100, 187, 500])
def test_autocorrelation_equals_its_definition(n_frames: int) -> None:
    curves = torch.rand(2, 3, n_frames, generator=torch.Generator().manual_seed(n_frames))
    correlation = autocorrelation(curves, 120)
    assert correlation.shape == (2, 3, 121)
    for n in range(2):
        torch.testing.assert_close(correlation[n, 1], by_definition(curves[n, 1], 120), rtol=0, atol=1e-5)


def test_autocorrelation_is_1_at_lag_0_at_any_level() -> None:
    curves = torch.randn(4, 187, generator=torch.Generator().manual_seed(0))
    correlation = autocorrelation(curves, 160)
    torch.testing.assert_close(correlation[:, 0], torch.ones(4), rtol=0, atol=2 * MIN_ENERGY)
    torch.testing.assert_close(autocorrelation(100 * curves + 7, 160), correlation, rtol=0, atol=2 * MIN_ENERGY)


@pytest.mark.parametrize("period", [17, 40, 61])
def test_autocorrelation_of_clicks_peaks_at_their_period(period: int) -> None:
    correlation = autocorrelation(clicks(period, 187), LONGEST_LAG)
    assert SHORTEST_LAG + int(correlation[SHORTEST_LAG : 2 * period - 1].argmax()) == period
    assert correlation[period] > 0.9
    assert correlation[period // 2] < 0.1


@pytest.mark.parametrize("level", [0.0, 3.0, 1e4])
def test_autocorrelation_of_a_constant_is_0(level: float) -> None:
    assert autocorrelation(torch.full((2, 187), level), 160).abs().max() < 0.01


def test_correlation_is_float32_under_half_precision() -> None:
    curves = torch.rand(2, 187).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        correlation = autocorrelation(curves, 160)
    assert correlation.dtype == torch.float32
    assert torch.equal(correlation, autocorrelation(curves.float(), 160))


def test_half_precision_changes_the_result_little() -> None:
    torch.manual_seed(0)
    path, x = RhythmPath(n_mels=12, width=8).eval(), torch.rand(3, 12, 187)
    exact = path(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = path(x)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, rtol=0.1, atol=0.05)


def test_lags_are_interpolated_and_evenly_spaced_on_a_logarithmic_scale() -> None:
    weights = log_lags()
    assert weights.shape == (LONGEST_LAG + 1, N_LAGS)
    lags = torch.arange(LONGEST_LAG + 1.0) @ weights  # of a ramp, interpolation reads the place itself
    even = SHORTEST_LAG * (LONGEST_LAG / SHORTEST_LAG) ** (torch.arange(N_LAGS) / (N_LAGS - 1))
    torch.testing.assert_close(lags, even, rtol=1e-5, atol=0)
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(N_LAGS))
    assert (weights >= 0).all()


def test_swing_and_straight_eighths_differ() -> None:
    straight, swing = (autocorrelation(eighths(36, second), LONGEST_LAG) for second in (1 / 2, 2 / 3))
    assert straight[18] > 0.9  # frames of half a beat
    assert swing[18] < -0.3
    assert swing[12] > 0.1  # a third of a beat, and two thirds
    assert swing[24] > 0.1
    assert ((straight - swing) @ log_lags()).abs().max() > 0.5


def test_a_rhythm_at_two_tempos_is_a_shifted_pattern() -> None:
    fast, slow = (autocorrelation(eighths(beat, 2 / 3), LONGEST_LAG) @ log_lags() for beat in (24, 48))
    octave = 20  # lags in a factor of 2, to 0.2 %
    torch.testing.assert_close(slow[octave:], fast[:-octave], rtol=0, atol=0.1)
    assert (slow - fast).abs().max() > 0.5


def test_layers_have_the_documented_shapes() -> None:
    path = RhythmPath(n_mels=96, width=128).eval()
    shapes: list[tuple[int, ...]] = []
    for layer in (path.onsets, path.norm, path.pattern, path.dense):
        layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    path.norm.register_forward_pre_hook(lambda _module, inputs: shapes.append(tuple(inputs[0].shape[1:])))
    x = torch.rand(2, 96, 187)
    path(x)
    shapes.append(tuple(autocorrelation(path.onsets(x), LONGEST_LAG).shape[1:]))
    assert (128,) in shapes
    shapes.remove((128,))
    table = inspect.getdoc(RhythmPath)
    assert table is not None
    for shape in shapes:
        assert f"(B, {', '.join(map(str, shape))})" in table, shape
    assert "(B, 64) " in table
    assert "(B, 768) " in table
    assert path.dense.in_features == 64 + 768


@pytest.mark.parametrize("n_frames", [1, 20, 187, 1870])
def test_clips_of_any_length_are_accepted(n_frames: int) -> None:
    torch.manual_seed(0)
    result = RhythmPath(n_mels=12, width=8)(torch.rand(3, 12, n_frames))
    assert result.shape == (3, 8)
    assert result.dtype == torch.float32
    assert result.isfinite().all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_constant_input_has_finite_outputs_and_gradients(level: float) -> None:
    torch.manual_seed(0)
    path = RhythmPath(n_mels=12, width=8)
    result = path(torch.full((3, 12, 187), level))
    result.square().sum().backward()
    assert result.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in path.parameters())
    assert path.eval()(torch.full((1, 12, 187), level)).isfinite().all()


def test_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    path = RhythmPath(n_mels=12, width=8)
    path(torch.rand(4, 12, 187)).square().sum().backward()
    for name, weight in path.named_parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name
