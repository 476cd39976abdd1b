"""The features of a track: all its clips' log-mel spectrograms in one row, so that nothing ever needs a join.

A cell holds the clips of one track as float16, C-order (C, T, M). Rounding a log-mel value (0 to about 7) to float16
moves it by at most 0.002, which moves no score of a trained network by more than 0.005 (see `tests/test_features.py`).
"""

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musictag.audio import reader
from musictag.audio.decoders import Decoder
from musictag.errors import AudioCorruptError, AudioTooLongError
from musictag.features import clips, log_mel
from musictag.features.config import FeatureConfig
from musictag.features.table import CELL_DTYPE, encode_clips
from musictag.storage import fetch
from musictag.storage.checksums import file_sha256
from musictag.storage.urls import redacted

MAX_HOURS = 2.0
"""Of a track, unless a caller says otherwise: the cell of an hour has 43 MB, and some copies of it are in memory."""


TrackClips = tuple[npt.NDArray[np.float16], list[int], float]
"""Clips (C, T, M) as a cell holds them, the frame at which each starts, and the track's duration in s."""

Decode = Callable[[Path, str, FeatureConfig, int | None, float], TrackClips]


def featurize(
    track_id: str,
    uri: str,
    config: FeatureConfig,
    clips_per_track: int | None = None,
    max_hours: float = MAX_HOURS,
    decode: Decode | None = None,
) -> dict[str, Any]:
    """Fetch, decode and cut one track into a row of `SCHEMA`; all its clips, or `clips_per_track` of them.

    `decode` is called instead of `track_clips`, for example that of a `DecoderProcess`. Raises the `AudioError` that
    says what is wrong with the track.
    """
    etag = fetch.audio_etag(uri)
    with fetch.local_audio(uri) as path:
        cut, starts, duration_s = (decode or track_clips)(path, uri, config, clips_per_track, max_hours)
        sha256 = file_sha256(path)
    return {
        "track_id": track_id,
        "uri": redacted(uri),
        "audio_etag": etag,
        "audio_sha256": sha256,
        "duration_s": duration_s,
        "n_clips": len(cut),
        "start_s": [start * config.hop_length / config.sample_rate for start in starts],
        "clips": encode_clips(cut),
        "feature_hash": config.feature_hash,
        "featurized_at": datetime.datetime.now(datetime.UTC),
    }


def track_clips(
    path: Path, name: str, config: FeatureConfig, clips_per_track: int | None = None, max_hours: float = MAX_HOURS
) -> TrackClips:
    """The clips of a local file.

    `name` is what errors call the file. Where only some clips are wanted and the decoder can seek, only they are
    decoded; before they are rounded, they equal the same clips cut from the whole track within 2e-5, but for noise that
    AAC has the decoder make up. Memory holds the clips, and besides of the whole track its spectrogram at most. Raises
    `AudioTooLongError` above `max_hours`.
    """
    if clips_per_track is not None:
        # What does not let itself be sought through may still play from its beginning (a FLAC behind a large ID3 tag).
        with contextlib.suppress(AudioCorruptError):
            return _track_clips(path, name, config, clips_per_track, max_hours, seek=True)
    return _track_clips(path, name, config, clips_per_track, max_hours, seek=False)


def _track_clips(
    path: Path, name: str, config: FeatureConfig, clips_per_track: int | None, max_hours: float, *, seek: bool
) -> TrackClips:
    n_decoded = 0

    def counted(blocks: Iterable[npt.NDArray[np.float32]]) -> Iterator[npt.NDArray[np.float32]]:
        nonlocal n_decoded
        for block in blocks:
            n_decoded += len(block)
            _check_length(n_decoded / config.sample_rate, name, max_hours)
            yield block

    with reader.open_audio(path, name) as opened:
        n_declared = opened.n_samples or 0
        _check_length(n_declared / opened.sample_rate, name, max_hours)
        if seek and opened.seeks and n_declared:
            n_samples = reader.n_resampled(n_declared, opened.sample_rate, config.sample_rate)
            n_frames = log_mel.n_frames(n_samples, config)
            starts = clips.clip_starts(n_frames, config, clips_per_track)
            if len(starts) * config.clip_frames < n_frames:
                reader.check_ends(opened)
                cut = np.stack([_clip_alone(opened, start, n_samples, config) for start in starts])
                return cut.astype(CELL_DTYPE), starts, n_samples / config.sample_rate
        cell = bytearray()  # grows in place: a list of arrays would be there twice as it is joined
        for frames in log_mel.stream_log_mel(counted(reader.waveform_blocks(opened, config.sample_rate)), config):
            cell += frames.astype(CELL_DTYPE).data
    n_frames = len(cell) // (CELL_DTYPE.itemsize * config.n_mels)
    starts = clips.clip_starts(n_frames, config, clips_per_track)
    n_missing = max(0, starts[-1] + config.clip_frames - n_frames)
    cell += bytes(n_missing * config.n_mels * CELL_DTYPE.itemsize)
    spectrogram = np.frombuffer(cell, CELL_DTYPE).reshape(-1, config.n_mels)
    return clips.cut_clips(spectrogram, starts, config), starts, n_decoded / config.sample_rate


def _check_length(duration_s: float, name: str, max_hours: float) -> None:
    if duration_s > max_hours * 3600:
        raise AudioTooLongError(f"{name}: longer than {max_hours:g} hours: if it is one track, raise --max-hours")


def _clip_alone(opened: Decoder, start: int, n_samples: int, config: FeatureConfig) -> npt.NDArray[np.float32]:
    # The first and last windows of a clip reach half a window beyond it; beyond the track there is silence.
    begin = start * config.hop_length - config.n_fft // 2
    end = begin + (config.clip_frames - 1) * config.hop_length + config.n_fft
    inside = reader.excerpt(opened, config.sample_rate, max(0, begin), min(n_samples, end))
    return log_mel.frames_log_mel(np.pad(inside, (max(0, -begin), max(0, end - n_samples))), config)
