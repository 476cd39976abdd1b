import datetime
import subprocess
import sys

import fsspec
import numpy as np
import pytest
import torch

from musictag.audio import decoders, ffmpeg, reader
from musictag.errors import AudioTooLongError, AudioTruncatedError, FeatureMismatchError, StoreError
from musictag.features import extract, log_mel
from musictag.features.clips import clip_starts, cut_clips
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, decode_clips, encode_clips, feature_config, open_features
from musictag.models.architectures import build_model
from musictag.storage import checksums, fetch, tables

CONFIG = FeatureConfig()


def test_a_cell_gives_back_its_clips_as_float16():
    config = FeatureConfig(n_mels=8, clip_frames=5)
    clips = np.random.default_rng(0).random((3, 5, 8)).astype(np.float32) * 7
    cell = encode_clips(clips)
    assert len(cell) == 3 * 5 * 8 * 2
    decoded = decode_clips(cell, config)
    assert decoded.dtype == np.float16
    np.testing.assert_array_equal(decoded, clips.astype(np.float16))


def test_clips_that_do_not_lie_in_order_are_encoded_in_order():
    config = FeatureConfig(n_mels=8, clip_frames=5)
    clips = np.arange(80, dtype=np.float32).reshape(2, 8, 5).transpose(0, 2, 1)
    np.testing.assert_array_equal(decode_clips(encode_clips(clips), config), clips)


@pytest.mark.parametrize("n_bytes", [0, 79, 81, 120])
def test_a_cell_of_another_size_is_refused(n_bytes):
    with pytest.raises(StoreError, match=f"{n_bytes} bytes is not a whole number of 5 x 8 clips"):
        decode_clips(bytes(n_bytes), FeatureConfig(n_mels=8, clip_frames=5))


def test_float16_moves_no_score_of_a_trained_network_by_more_than_5_thousandths(music):
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


@pytest.mark.parametrize(("name", "sample_rate"), [("a.flac", 44_100), ("a.mp3", 44_100), ("a.ogg", 48_000)])
@pytest.mark.parametrize("n_clips", [1, 2, 3])
def test_n_clips_equal_the_same_frames_of_the_whole_track(tmp_path, music, write_audio, name, sample_rate, n_clips):
    path = write_audio(tmp_path / name, music(13.7, sample_rate), sample_rate)
    with reader.open_audio(path, name) as opened:
        waveform = np.concatenate(list(reader.waveform_blocks(opened, CONFIG.sample_rate)))
    whole = log_mel.log_mel(waveform, CONFIG)
    clips, starts, duration_s = extract.track_clips(path, name, CONFIG, n_clips)
    assert starts == clip_starts(len(whole), CONFIG, n_clips)
    assert duration_s == len(waveform) / CONFIG.sample_rate
    expected = cut_clips(whole, starts, CONFIG)
    np.testing.assert_allclose(clips, expected, atol=2e-5, rtol=2**-11)  # float16 keeps 11 bits


def test_only_the_wanted_clips_are_decoded(tmp_path, music, write_audio, monkeypatch):
    path = write_audio(tmp_path / "a.flac", music(30.0), 44_100)
    decoded = []
    blocks = decoders.FlacDecoder.blocks

    def counted(*args):
        for block in blocks(*args):
            decoded.append(len(block))
            yield block

    monkeypatch.setattr(decoders.FlacDecoder, "blocks", counted)
    extract.track_clips(path, "a", CONFIG, 2)
    assert sum(decoded) < 44_100 * (2 * CONFIG.clip_seconds + 1)


def test_n_clips_of_m4a_lie_where_they_lie_in_the_whole_track(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.m4a", music(10.0), 44_100)
    every, _, _ = extract.track_clips(path, "a", CONFIG)
    whole = np.concatenate(every)
    clips, starts, _ = extract.track_clips(path, "a", CONFIG, 2)
    # Where the encoder leaves noise to the decoder, another beginning has another noise.
    same = np.isclose(clips, cut_clips(whole, starts, CONFIG), atol=2e-5, rtol=2**-11)
    assert same.mean() > 0.95


def test_more_clips_than_there_are_gives_all_of_them(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(7.0), 44_100)
    every, starts, _ = extract.track_clips(path, "a", CONFIG)
    assert starts == [0, 187, 374]
    np.testing.assert_array_equal(extract.track_clips(path, "a", CONFIG, 5)[0], every)


def test_a_truncated_track_fails_with_few_clips_as_with_all(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.mp3", music(20.0), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    for n_clips in (None, 3):
        with pytest.raises(AudioTruncatedError, match="truncated: the header declares"):
            extract.track_clips(path, "a", CONFIG, n_clips)


def test_a_row_holds_no_secret(music, write_audio, tmp_path):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    fsspec.filesystem("memory").pipe("/shelf/a.wav?sig=secret", path.read_bytes())
    row = extract.featurize("a", "memory://shelf/a.wav?sig=secret", CONFIG)
    assert row["uri"] == "memory://shelf/a.wav?sig=***"


def test_a_row_says_what_it_was_made_of(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(7.0), 44_100)
    row = extract.featurize("a", str(path), CONFIG)
    assert list(row) == SCHEMA.names
    assert row["track_id"] == "a"
    assert row["uri"] == str(path)
    assert row["audio_etag"] == fetch.audio_etag(str(path))
    assert row["audio_sha256"] == checksums.file_sha256(path)
    assert row["duration_s"] == pytest.approx(7.0)
    assert row["n_clips"] == 3
    assert row["start_s"] == pytest.approx([0, 2.992, 5.984])
    assert decode_clips(row["clips"], CONFIG).shape == (3, 187, 96)
    assert row["feature_hash"] == CONFIG.feature_hash
    assert datetime.datetime.now(datetime.UTC) - row["featurized_at"] < datetime.timedelta(minutes=1)


def test_a_table_is_made_once_and_opened_again(tmp_path):
    uri = str(tmp_path / "features")
    assert open_features(uri, CONFIG, 5).version() == 0
    table = open_features(uri, CONFIG, 5)
    assert table.version() == 0
    assert feature_config(table) == CONFIG


def test_a_table_of_other_settings_is_refused_with_both(tmp_path):
    uri = str(tmp_path / "features")
    open_features(uri, FeatureConfig(n_mels=48, fmax=7_000.0), None)
    with pytest.raises(FeatureMismatchError) as caught:
        open_features(uri, CONFIG, None)
    for part in (uri, "n_mels 48 there, 96 here", "fmax 7000.0 there, 8000.0 here", "--features"):
        assert part in str(caught.value)
    assert "hop_length" not in str(caught.value)


@pytest.mark.parametrize(("held", "wanted", "message"), [(None, 3, "all, not 3"), (3, None, "3, not all")])
def test_a_table_of_another_number_of_clips_is_refused_with_both(tmp_path, held, wanted, message):
    uri = str(tmp_path / "features")
    open_features(uri, CONFIG, held)
    with pytest.raises(FeatureMismatchError, match=f"holds clips-per-track {message}"):
        open_features(uri, CONFIG, wanted)


def test_a_table_that_holds_no_features_is_refused(tmp_path):
    table = tables.create_table(str(tmp_path / "other"), SCHEMA)
    with pytest.raises(StoreError, match="not a features table"):
        feature_config(table)


def test_featurizing_does_not_load_torch():
    code = "import musictag.features.extract, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
@pytest.mark.parametrize("n_clips", [None, 1])
def test_a_track_longer_than_the_limit_is_refused_and_says_how_to_have_it(tmp_path, music, write_audio, name, n_clips):
    path = write_audio(tmp_path / name, music(9.0), 44_100)
    assert len(extract.track_clips(path, "a", CONFIG, n_clips, 9.5 / 3600)[1]) == (n_clips or 4)
    with pytest.raises(AudioTooLongError, match=r"a: longer than 0\.00222222 hours: .* raise --max-hours"):
        extract.track_clips(path, "a", CONFIG, n_clips, 8 / 3600)


def test_a_track_whose_header_declares_no_length_is_refused_once_it_is_too_long(
    tmp_path, music, write_audio, monkeypatch
):
    path = write_audio(tmp_path / "a.m4a", music(9.0), 44_100)
    monkeypatch.setattr(ffmpeg.FFmpegDecoder, "n_samples", None)
    with pytest.raises(AudioTooLongError):
        extract.track_clips(path, "a", CONFIG, None, 5 / 3600)
