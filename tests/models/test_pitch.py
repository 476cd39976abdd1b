import inspect
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from musictag.errors import UsageError
from musictag.features.log_mel import band_centres
from musictag.models import pitch
from musictag.models.pitch import BINS_PER_OCTAVE, LOWEST_HZ, OCTAVES, PitchPath

PITCHES = math.log2(LOWEST_HZ) + np.arange(OCTAVES * BINS_PER_OCTAVE) / BINS_PER_OCTAVE


def fresh(seed: int = 0) -> PitchPath:
    torch.manual_seed(seed)
    return PitchPath(n_mels=96, width=16, fmin=0, fmax=8000).eval()


def sound(*tones_hz: float) -> Tensor:
    """Spectrograms (1, M, T) in which some tones sound, each spread over a few semitones."""
    bands = np.log2(band_centres(96, 0, 8000))
    away = 12 * (bands[:, None] - np.log2(tones_hz))  # semitones
    level = torch.from_numpy(np.exp(-0.5 * (away / 1.5) ** 2).sum(axis=1)).float()
    return level[None, :, None].expand(1, 96, 187)


def away(some: Tensor, other: Tensor) -> float:
    """How far apart two results are, as a share of what the first differs from that of silence."""
    silence = fresh()(torch.zeros(1, 96, 187))
    return ((some - other).norm() / (some - silence).norm()).item()


@pytest.mark.parametrize(("n_mels", "fmin", "fmax"), [(96, 0, 8000), (40, 300, 3000), (128, 30, 11_025), (2, 0, 8000)])
def test_a_linear_function_of_pitch_is_interpolated_exactly(n_mels: int, fmin: float, fmax: float) -> None:
    bands = np.log2(band_centres(n_mels, fmin, fmax))
    read = pitch._bands_to_pitches(n_mels, fmin, fmax) @ torch.from_numpy(bands).float()
    np.testing.assert_allclose(read, PITCHES.clip(bands[0], bands[-1]), rtol=1e-6)


def test_a_chord_gives_the_same_embedding_in_every_key_after_octaves_are_averaged() -> None:
    path = fresh()
    tones = torch.rand(3, 16, OCTAVES * BINS_PER_OCTAVE, 24)
    played = tones
    path.partials.register_forward_hook(lambda *_: played)
    x = torch.zeros(3, 96, 187)
    for mode in (path.eval, path.train):
        mode()
        played = tones
        expected = path(x)
        for steps in (1, 2, 14):  # quarter tones
            in_octaves = tones.unflatten(2, (OCTAVES, BINS_PER_OCTAVE))
            played = in_octaves.roll(steps, dims=3).flatten(2, 3)
            torch.testing.assert_close(path(x), expected, rtol=1e-4, atol=1e-5)
        played = tones.roll(BINS_PER_OCTAVE, dims=2)
        torch.testing.assert_close(path(x), expected, rtol=1e-4, atol=1e-5)
        played = tones[:, :, torch.randperm(OCTAVES * BINS_PER_OCTAVE)]
        assert (path(x) - expected).abs().max() > 0.01


@pytest.mark.parametrize("semitones", [1, 2, 5, 7])
def test_an_interval_gives_nearly_the_same_embedding_in_another_key(semitones: int) -> None:
    path, lower = fresh(), 500.0
    up = 2 ** (semitones / 12)
    fifth, tritone = lower * 2 ** (7 / 12), lower * 2 ** (6 / 12)
    here, there = path(sound(lower, fifth)), path(sound(up * lower, up * fifth))
    assert away(here, there) < 0.5 * away(here, path(sound(lower, tritone)))


def test_layers_have_the_documented_shapes() -> None:
    path = PitchPath(n_mels=96, width=64, fmin=0, fmax=8000).eval()
    inputs, outputs = {}, {}
    for name, layer in path.named_children():
        layer.register_forward_pre_hook(lambda _, given, name=name: inputs.update({name: tuple(given[0].shape)}))
        layer.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: tuple(output.shape)}))
    path(torch.rand(2, 96, 187))
    assert inputs == {"partials": (2, 1, 120, 24), "profiles": (2, 16, 24 + 23), "dense": (2, 128)}
    assert outputs == {"partials": (2, 16, 120, 24), "profiles": (2, 64, 24), "dense": (2, 64)}
    table = inspect.getdoc(PitchPath)
    assert table is not None
    for shape in ("96, 24", "120, 24", "16, 120, 24", "16, 120", "16, 24", "64, 24", "128"):
        assert f"(B, {shape}) " in table, shape


@pytest.mark.parametrize(("n_frames", "n_mels"), [(1, 96), (20, 8), (187, 96), (1870, 2)])
def test_clips_of_any_size_are_accepted(n_frames: int, n_mels: int) -> None:
    torch.manual_seed(0)
    result = PitchPath(n_mels=n_mels, width=8, fmin=0, fmax=8000)(torch.rand(3, n_mels, n_frames))
    assert result.shape == (3, 8)
    assert result.dtype == torch.float32
    assert result.isfinite().all()


def test_silence_has_finite_outputs_and_gradients() -> None:
    path = fresh().train()
    result = path(torch.zeros(3, 96, 187))
    result.square().sum().backward()
    assert result.isfinite().all()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in path.parameters())
    assert path.eval()(torch.zeros(1, 96, 187)).isfinite().all()


def test_every_weight_has_a_gradient() -> None:
    path = fresh().train()
    path(torch.rand(4, 96, 40)).square().sum().backward()
    for name, weight in path.named_parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("fmin", "fmax"), [(-1, 8000), (8000, 8000), ("low", 8000), (0, None), (math.nan, 8000), (0, math.inf)]
)
def test_invalid_fmin_and_fmax_are_refused(fmin: float, fmax: float) -> None:
    with pytest.raises(UsageError, match=r"fmin is .* and fmax .*: finite numbers"):
        PitchPath(n_mels=8, width=4, fmin=fmin, fmax=fmax)
