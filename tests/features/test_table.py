import numpy as np
import pytest
import torch

from musictag.errors import FeatureMismatchError, StoreError
from musictag.features import log_mel
from musictag.features.clips import clip_starts, cut_clips
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, decode_clips, encode_clips, feature_config, open_features
from musictag.models.architectures import build_model
from musictag.storage import tables

CONFIG = FeatureConfig()


def test_decoded_cell_has_the_clips_as_float16():
    config = FeatureConfig(n_mels=8, clip_frames=5)
    clips = np.random.default_rng(0).random((3, 5, 8)).astype(np.float32) * 7
    cell = encode_clips(clips)
    assert len(cell) == 3 * 5 * 8 * 2
    decoded = decode_clips(cell, config)
    assert decoded.dtype == np.float16
    np.testing.assert_array_equal(decoded, clips.astype(np.float16))


def test_non_contiguous_clips_are_encoded_in_c_order():
    config = FeatureConfig(n_mels=8, clip_frames=5)
    clips = np.arange(80, dtype=np.float32).reshape(2, 8, 5).transpose(0, 2, 1)
    np.testing.assert_array_equal(decode_clips(encode_clips(clips), config), clips)


@pytest.mark.parametrize("n_bytes", [0, 79, 81, 120])
def test_cell_of_wrong_size_is_an_error(n_bytes):
    with pytest.raises(StoreError, match=f"{n_bytes} bytes is not a whole number of 5 x 8 clips"):
        decode_clips(bytes(n_bytes), FeatureConfig(n_mels=8, clip_frames=5))


@pytest.mark.slow
def test_float16_changes_scores_by_at_most_0_005(music):
    levels = (0.01, 0.3, 1.0, 3.0)
    spectrograms = [
        log_mel.log_mel(level * music(5.9, 16_000, 1, seed)[:, 0], CONFIG) for seed, level in enumerate(levels)
    ]
    clips = np.concatenate([cut_clips(frames, clip_starts(len(frames), CONFIG), CONFIG) for frames in spectrograms])
    assert clips.max() > 5
    rounded = decode_clips(encode_clips(clips), CONFIG).astype(np.float32)
    assert 0 < np.abs(rounded - clips).max() <= 0.002

    torch.manual_seed(0)
    model = build_model("cnn", {}, n_mels=96, n_tags=20)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    exact, targets = torch.from_numpy(clips), (torch.rand(len(clips), 20) < 0.3).float()
    for _ in range(25):
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(model(exact), targets).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        scores, moved = torch.sigmoid(model(exact)), torch.sigmoid(model(torch.from_numpy(rounded)))
    assert scores.std() > 0.15
    assert 0 < (scores - moved).abs().max() <= 0.005


def test_table_is_created_once_and_opened_again(tmp_path):
    uri = str(tmp_path / "features")
    assert open_features(uri, CONFIG, 5).version() == 0
    table = open_features(uri, CONFIG, 5)
    assert table.version() == 0
    assert feature_config(table) == CONFIG


def test_table_with_other_settings_is_an_error(tmp_path):
    uri = str(tmp_path / "features")
    open_features(uri, FeatureConfig(n_mels=48, fmax=7_000.0), None)
    with pytest.raises(FeatureMismatchError) as caught:
        open_features(uri, CONFIG, None)
    for part in (uri, "n_mels 48 there, 96 here", "fmax 7000.0 there, 8000.0 here", "--features"):
        assert part in str(caught.value)
    assert "hop_length" not in str(caught.value)


@pytest.mark.parametrize(("existing", "wanted", "message"), [(None, 3, "all, not 3"), (3, None, "3, not all")])
def test_table_with_another_number_of_clips_is_an_error(tmp_path, existing, wanted, message):
    uri = str(tmp_path / "features")
    open_features(uri, CONFIG, existing)
    with pytest.raises(FeatureMismatchError, match=f"holds clips-per-track {message}"):
        open_features(uri, CONFIG, wanted)


def test_table_without_features_is_an_error(tmp_path):
    table = tables.create_table(str(tmp_path / "other"), SCHEMA)
    with pytest.raises(StoreError, match="not a features table"):
        feature_config(table)
