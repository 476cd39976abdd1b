import datetime
import errno
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.audio import reader
from musictag.errors import (
    AudioDecoderBugError,
    AudioTooLongError,
    AudioTruncatedError,
    AudioUnreachableError,
    StoreError,
)
from musictag.features import extract, log_mel
from musictag.features.clips import clip_starts, cut_clips
from musictag.features.config import FeatureConfig
from musictag.features.limits import Limits
from musictag.features.table import SCHEMA, decode_clips
from musictag.storage import checksums, etags, retry

CONFIG = FeatureConfig()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "sample_rate"), [("a.flac", 44_100), ("a.mp3", 44_100), ("a.ogg", 48_000)])
@pytest.mark.parametrize("n_clips", [1, 2, 3])
def test_n_clips_equal_the_same_frames_of_the_whole_track(tmp_path, music, write_audio, name, sample_rate, n_clips):
    path = write_audio(tmp_path / name, music(13.7, sample_rate), sample_rate)
    with reader.open_audio(path, name) as opened:
        waveform = np.concatenate(list(reader.waveform_blocks(opened, CONFIG.sample_rate)))
    whole = log_mel.log_mel(waveform, CONFIG)
    clips, starts, duration_s, _ = extract.track_clips(path, name, CONFIG, n_clips)
    assert starts == clip_starts(len(whole), CONFIG, n_clips)
    assert duration_s == len(waveform) / CONFIG.sample_rate
    expected = cut_clips(whole, starts, CONFIG)
    np.testing.assert_allclose(clips, expected, atol=2e-5, rtol=2**-11)  # float16 keeps 11 bits


@pytest.mark.slow
def test_only_the_requested_clips_are_decoded(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.flac", music(30.0), 44_100)
    clips, starts, _, _ = extract.track_clips(path, "a", CONFIG, 2)  # at 1/4 and 3/4 of the track
    content = bytearray(path.read_bytes())
    for share in (0.06, 0.48, 0.9):
        begin = int(len(content) * share)
        content[begin : begin + 4_000] = bytes(4_000)
    path.write_bytes(content)
    with pytest.raises(AudioTruncatedError):
        extract.track_clips(path, "a", CONFIG, None, Limits(max_damage=0))
    of_damaged = extract.track_clips(path, "a", CONFIG, 2)
    assert (of_damaged.starts, of_damaged.damaged_s) == (starts, 0)
    np.testing.assert_array_equal(of_damaged.clips, clips)


@pytest.mark.slow
def test_n_clips_of_m4a_equal_the_whole_track_except_for_noise(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.m4a", music(10.0), 44_100)
    every, _, _, _ = extract.track_clips(path, "a", CONFIG)
    whole = np.concatenate(every)
    clips, starts, _, _ = extract.track_clips(path, "a", CONFIG, 2)
    # An AAC decoder adds random noise, which depends on where decoding begins.
    same = np.isclose(clips, cut_clips(whole, starts, CONFIG), atol=2e-5, rtol=2**-11)
    assert same.mean() > 0.95


def test_short_track_has_fewer_clips_than_requested(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(7.0), 44_100)
    every, starts, _, _ = extract.track_clips(path, "a", CONFIG)
    assert starts == [0, 187, 374]
    np.testing.assert_array_equal(extract.track_clips(path, "a", CONFIG, 5)[0], every)


@pytest.mark.slow
def test_truncated_track_fails_with_any_number_of_clips(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.mp3", music(20.0), 44_100)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    for n_clips in (None, 3):
        with pytest.raises(AudioTruncatedError, match="truncated: the header declares"):
            extract.track_clips(path, "a", CONFIG, n_clips)


def test_row_holds_no_secret(music, write_audio, tmp_path):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    fsspec.filesystem("memory").pipe("/shelf/a.wav?sig=secret", path.read_bytes())
    row = extract.featurize("a", "memory://shelf/a.wav?sig=secret", CONFIG)
    assert row["uri"] == "memory://shelf/a.wav?sig=***"


def test_row_has_all_columns(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(7.0), 44_100)
    row = extract.featurize("a", str(path), CONFIG)
    assert list(row) == SCHEMA.names
    assert row["track_id"] == "a"
    assert row["uri"] == str(path)
    assert row["audio_etag"] == etags.audio_etag(str(path))
    assert row["audio_sha256"] == checksums.file_sha256(path)
    assert row["duration_s"] == pytest.approx(7.0)
    assert row["n_clips"] == 3
    assert row["start_s"] == pytest.approx([0, 2.992, 5.984])
    assert decode_clips(row["clips"], CONFIG).shape == (3, 187, 96)
    assert row["feature_hash"] == CONFIG.feature_hash
    assert datetime.datetime.now(datetime.UTC) - row["featurized_at"] < datetime.timedelta(minutes=1)


@pytest.mark.slow
def test_featurizing_does_not_load_torch():
    code = "import musictag.features.extract, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.mp3", "a.m4a"])
def test_limit_holds_for_tracks_that_are_decoded_as_a_whole(tmp_path, music, write_audio, name):
    path = write_audio(tmp_path / name, music(9.0), 44_100)
    assert len(extract.track_clips(path, "a", CONFIG, None, Limits(9.5 / 3600))[1]) == 4
    with pytest.raises(AudioTooLongError, match=r"a: longer than 0\.00222222 hours: .* raise --max-hours"):
        extract.track_clips(path, "a", CONFIG, None, Limits(8 / 3600))
    assert len(extract.track_clips(path, "a", CONFIG, 1, Limits(8 / 3600))[1]) == 1  # only the clip is decoded


@pytest.mark.slow
def test_limit_holds_for_clips_of_a_file_that_cannot_seek(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.aac", music(9.0), 44_100)
    assert len(extract.track_clips(path, "a", CONFIG, 1, Limits(9.5 / 3600))[1]) == 1
    with pytest.raises(AudioTooLongError):
        extract.track_clips(path, "a", CONFIG, 1, Limits(8 / 3600))


@pytest.mark.slow
def test_track_without_declared_length_is_an_error_above_the_limit(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.aac", music(9.0), 44_100)
    with reader.open_audio(path, "a") as audio:
        assert audio.n_samples is None
    with pytest.raises(AudioTooLongError):
        extract.track_clips(path, "a", CONFIG, None, Limits(5 / 3600))


@settings(max_examples=25, deadline=None)
@given(
    n_samples=st.integers(1, 250_000),
    sample_rate=st.sampled_from([8_000, 11_025, 16_000, 22_050, 44_100, 48_000]),
    n_clips=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_clips_decoded_alone_equal_clips_of_the_whole_track(n_samples, sample_rate, n_clips, seed):
    config = FeatureConfig(clip_frames=20)
    samples = np.random.default_rng(seed).normal(0, 0.2, n_samples).clip(-1, 1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.wav"
        soundfile.write(path, samples, sample_rate)
        with reader.open_audio(path, "a") as audio:
            waveform = np.concatenate(list(reader.waveform_blocks(audio, config.sample_rate)))
        clips, starts, duration_s, _ = extract.track_clips(path, "a", config, n_clips)
    whole = log_mel.log_mel(waveform, config)
    assert starts == clip_starts(len(whole), config, n_clips)
    assert duration_s == len(waveform) / config.sample_rate
    # The bound of 2e-5 holds before rounding to float16, which has 11 bits.
    np.testing.assert_allclose(clips, cut_clips(whole, starts, config), atol=2e-5, rtol=2**-11)


VANISHING = [
    FileNotFoundError(errno.ENOENT, "no such file"),
    PermissionError(errno.EACCES, "denied"),
    OSError(errno.EIO, "input/output error"),
    OSError(errno.ENAMETOOLONG, "name too long"),
]
STEPS = [
    "musictag.storage.etags.os.stat",
    "musictag.storage.fetch.has_content",
    "musictag.features.extract.file_sha256",
]


@pytest.mark.parametrize("error", VANISHING, ids=lambda error: error.strerror)
@pytest.mark.parametrize("step", [*STEPS, "decode"])
def test_error_of_the_file_at_any_step_is_unreachable(tmp_path, music, write_audio, monkeypatch, step, error):
    path = str(write_audio(tmp_path / "a.wav", music(1.0), 44_100))
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)

    def fail(*arguments, **options):
        raise error

    if step != "decode":
        monkeypatch.setattr(step, fail)
    with pytest.raises(AudioUnreachableError, match=f"^{path}: cannot be read: .*{error.strerror}"):
        extract.featurize("a", path, CONFIG, decode=fail if step == "decode" else None)


def test_file_that_vanishes_while_it_is_decoded_is_unreachable(tmp_path, music, write_audio):
    path = write_audio(tmp_path / "a.wav", music(1.0), 44_100)

    def vanish(*arguments):
        path.unlink()
        raise AudioTruncatedError("the file is shorter than its header says")

    with pytest.raises(AudioUnreachableError, match=r"cannot be read: .*No such file"):
        extract.featurize("a", str(path), CONFIG, decode=vanish)


@pytest.mark.parametrize("error", [struct.error("a"), IndexError("a"), OverflowError("a"), RecursionError("a")])
def test_unexpected_error_of_a_decoder_is_a_bug_that_costs_one_track(tmp_path, music, write_audio, error):
    path = str(write_audio(tmp_path / "a.wav", music(1.0), 44_100))

    def fail(*arguments):
        raise error

    bug = rf"^{path}: a bug of a decoder.*: {type(error).__name__}: a \(test_extract\.py:\d+\); please report"
    with pytest.raises(AudioDecoderBugError, match=bug):
        extract.featurize("a", path, CONFIG, decode=fail)


@pytest.mark.parametrize("error", [MemoryError(), StoreError("table t: full")])
def test_errors_of_the_worker_and_of_tables_are_none_of_the_track(tmp_path, music, write_audio, error):
    path = str(write_audio(tmp_path / "a.wav", music(1.0), 44_100))

    def fail(*arguments):
        raise error

    with pytest.raises(type(error)):
        extract.featurize("a", path, CONFIG, decode=fail)
    with pytest.raises(type(error)):
        extract.featurize("a", path, CONFIG, find_row=fail)


def test_etag_is_retried_as_the_copy_is(monkeypatch, tmp_path, music, write_audio):
    path = str(write_audio(tmp_path / "a.wav", music(1.0), 44_100))
    monkeypatch.setattr(retry, "FIRST_PAUSE_S", 0.0)
    errors = [OSError("SlowDown")] * (retry.TRIES - 1)

    def busy(uri, ask=etags.single_etag):
        if errors:
            raise errors.pop()
        return ask(uri)

    monkeypatch.setattr(etags, "single_etag", busy)
    assert extract.featurize("a", path, CONFIG)["audio_etag"] == busy(path)
