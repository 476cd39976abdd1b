import contextlib
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from musictag.features.clips import cut_clips
from musictag.features.config import FeatureConfig
from musictag.features.log_mel import log_mel
from musictag.features.table import CELL_DTYPE
from musictag.models.architectures import SINGLE, build_model
from musictag.models.artifact import load_model
from musictag.models.published import pretrained
from musictag.tagging.half_precision import join_on_device, score_on_device
from musictag.tagging.scorers import HalfNetworkScorer, NetworkScorer, WeightedClips, join
from small import CONFIG, clips_of, small_model, track

DEFAULTS = FeatureConfig()
MAX_DIFFERENCE = 0.002
LARGEST_FLOAT16 = float(torch.finfo(torch.float16).max)
LOUDEST = 7.0
"""Above the log-mel value of any sound of full scale."""


class First(nn.Module):
    """A network whose logits are the first three values of a clip; it records the size of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.sizes: list[int] = []

    def forward(self, log_mel: Tensor) -> Tensor:
        self.sizes.append(len(log_mel))
        return self.weight * log_mel.flatten(1)[:, :3]


def small_tracks(*numbers_of_clips: int) -> list[WeightedClips]:
    rng = np.random.default_rng(0)
    return [
        WeightedClips(clips_of(track(n_clips, seed)), rng.uniform(0.1, 1, n_clips).astype(np.float32))
        for seed, n_clips in enumerate(numbers_of_clips)
    ]


@given(
    numbers_of_clips=st.lists(st.integers(1, 12), min_size=1, max_size=12),
    batch_size=st.integers(1, 40),
    data=st.data(),
)
def test_clips_of_different_tracks_share_full_batches(
    numbers_of_clips: list[int], batch_size: int, data: st.DataObject
) -> None:
    seed = data.draw(st.integers(0, 2**32 - 1))
    clips = np.random.default_rng(seed).normal(size=(sum(numbers_of_clips), 2, 4)).astype(np.float16)
    model = First()
    scores = score_on_device(model, np.split(clips, np.cumsum(numbers_of_clips)[:-1]), batch_size)
    full, rest = divmod(len(clips), batch_size)
    assert model.sizes == [batch_size] * full + [rest] * (rest > 0)
    expected = torch.sigmoid(torch.from_numpy(clips).float().flatten(1)[:, :3])
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores, expected, atol=1e-6)  # vectors and single numbers differ in the last bit


def test_tracks_are_joined_as_on_the_host() -> None:
    tracks, scores = small_tracks(5, 1, 20, 2), torch.rand(28, 3, generator=torch.Generator().manual_seed(0))
    joined = join_on_device(scores, [each.weights for each in tracks])
    per_track = scores.split([len(each.clips) for each in tracks])
    expected = [join(of_track.numpy(), each.weights) for of_track, each in zip(per_track, tracks, strict=True)]
    np.testing.assert_allclose(joined.numpy(), np.stack(expected), atol=1e-6)


def test_half_scores_are_those_of_float32_nearly() -> None:
    tracks, model = small_tracks(5, 1, 20, 2), small_model()
    half, single = HalfNetworkScorer(model, 8), NetworkScorer(model, 8)
    np.testing.assert_allclose(half.score_group(tracks), single.score_group(tracks), atol=MAX_DIFFERENCE)
    (alone,) = half.score_group(tracks[:1])
    joined = half.joined_scores(half.clip_scores(tracks[0].clips), tracks[0])
    np.testing.assert_allclose(alone, joined, atol=1e-6)


@pytest.mark.parametrize("training", [True, False])
def test_scoring_does_not_change_the_model(training: bool) -> None:
    model = small_model().train(training)
    first, again = (HalfNetworkScorer(model).score_group(small_tracks(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert model.training is training


class Exceeding(nn.Module):
    """A network that exceeds float16 for loud clips, and not float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(CONFIG.n_mels, 3)
        with torch.no_grad():
            self.layer.weight.fill_(1000.0)
            self.layer.bias.zero_()

    def forward(self, log_mel: Tensor) -> Tensor:
        loudness = self.layer(log_mel).amax(dim=1)
        return loudness / 100_000


def test_tracks_that_exceed_float16_are_scored_in_float32() -> None:
    shape = 2, CONFIG.clip_frames, CONFIG.n_mels
    loud, quiet = (WeightedClips(np.full(shape, value, np.float16), np.ones(2, np.float32)) for value in (7, 0.5))
    model = Exceeding()
    assert score_on_device(model, [loud.clips, quiet.clips], 8).isnan().any(dim=1).tolist() == [True] * 2 + [False] * 2
    half, single = HalfNetworkScorer(model), NetworkScorer(model)
    scores, expected = (scorer.score_group([loud, quiet]) for scorer in (half, single))
    np.testing.assert_array_equal(scores[0], expected[0])
    np.testing.assert_allclose(scores[1], expected[1], atol=MAX_DIFFERENCE)
    np.testing.assert_array_equal(half.clip_scores(loud.clips), single.clip_scores(loud.clips))


@pytest.fixture(scope="module")
def tracks(music: Callable[..., np.ndarray]) -> dict[str, np.ndarray]:
    """Return the clips of made tracks of three kinds."""
    rng, shape = np.random.default_rng(0), (1, DEFAULTS.clip_frames, DEFAULTS.n_mels)
    of_music = log_mel(music(10, DEFAULTS.sample_rate).mean(axis=1).astype(np.float32), DEFAULTS)
    starts = list(range(0, len(of_music) - DEFAULTS.clip_frames, DEFAULTS.clip_frames))
    return {
        "music": cut_clips(of_music, starts, DEFAULTS).astype(CELL_DTYPE),
        "silence": np.zeros(shape, CELL_DTYPE),
        "loudest": np.full(shape, LOUDEST, CELL_DTYPE),
        "noise": (LOUDEST * rng.random(shape)).astype(CELL_DTYPE),
    }


@contextlib.contextmanager
def recorded_maxima(model: nn.Module) -> Iterator[list[float]]:
    """Fill a list with the largest absolute values of what layers get and give in the body."""
    maxima: list[float] = []

    def record(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        maxima.extend(float(values.float().abs().max()) for values in (*inputs, output))

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    yield maxima
    for hook in hooks:
        hook.remove()


def check_range_and_precision(model: nn.Module, tracks: dict[str, np.ndarray]) -> None:
    for kind, clips in tracks.items():
        of_track = WeightedClips(clips, np.ones(len(clips), np.float32))
        expected = NetworkScorer(model).score_group([of_track])
        with recorded_maxima(model) as maxima:
            scores = HalfNetworkScorer(model).score_group([of_track])
        assert 0 < max(maxima) < LARGEST_FLOAT16 / 2, kind
        assert np.abs(scores - expected).max() <= MAX_DIFFERENCE, kind


@pytest.mark.slow
@pytest.mark.parametrize("architecture", SINGLE)
def test_architectures_stay_in_the_range_of_float16(architecture: str, tracks: dict[str, np.ndarray]) -> None:
    torch.manual_seed(0)
    model = build_model(architecture, {}, n_mels=DEFAULTS.n_mels, n_tags=50).eval()
    check_range_and_precision(model, tracks)


@pytest.mark.slow
@pytest.mark.parametrize("name", pretrained.PUBLISHED)
def test_published_networks_stay_in_the_range_of_float16(name: str, tracks: dict[str, np.ndarray]) -> None:
    check_range_and_precision(load_model(pretrained.find(name))[0].eval(), tracks)
