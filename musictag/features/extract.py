"""Extract the clips of a track and make its row of the features table."""

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from musictag.audio import reader
from musictag.audio.decoders import Decoder
from musictag.audio.mixing import Mixer
from musictag.errors import AudioCorruptError, AudioTooLongError
from musictag.features import log_mel
from musictag.features.clips import clip_starts, cut_clips, is_silent
from musictag.features.config import FeatureConfig
from musictag.features.table import CELL_DTYPE, encode_clips
from musictag.storage import fetch
from musictag.storage.checksums import file_sha256
from musictag.storage.urls import redacted

Float32 = npt.NDArray[np.float32]

MAX_HOURS = 2.0
"""Default limit of a track's length: the cell of one hour has 43 MB, and memory holds several copies of it."""

TrackClips = tuple[npt.NDArray[np.float16], list[int], float]
"""Clips (C, T, M), the first frame of each clip, and the duration of the track in s."""

Decode = Callable[[Path, str, FeatureConfig, int | None, float], TrackClips]
"""A function with the arguments and result of `track_clips`."""


def featurize(
    track_id: str,
    uri: str,
    config: FeatureConfig,
    clips_per_track: int | None = None,
    max_hours: float = MAX_HOURS,
    decode: Decode | None = None,
) -> dict[str, Any]:
    """Fetch and decode a track and return its row of the features table.

    The row has `clips_per_track` clips, or all if it is None. `decode` replaces `track_clips`, for example by
    `DecoderProcess.track_clips`.

    Raises:
        AudioError: the track cannot be fetched or decoded; the subclass says why.
    """
    etag = fetch.audio_etag(uri)  # asked again: the audio may have changed since the plan
    with fetch.local_audio(uri) as path:
        clips, starts, duration_s = (decode or track_clips)(path, uri, config, clips_per_track, max_hours)
        sha256 = file_sha256(path)
    return {
        "track_id": track_id,
        "uri": redacted(uri),
        "audio_etag": etag or f"sha256:{sha256}",
        "audio_sha256": sha256,
        "duration_s": duration_s,
        "n_clips": len(clips),
        "start_s": [start * config.hop_length / config.sample_rate for start in starts],
        "clips": encode_clips(clips),
        "feature_hash": config.feature_hash,
        "featurized_at": datetime.datetime.now(datetime.UTC),
        "silent": is_silent(clips),
    }


def track_clips(
    path: Path, name: str, config: FeatureConfig, clips_per_track: int | None = None, max_hours: float = MAX_HOURS
) -> TrackClips:
    """Return the clips of a local file.

    If only some clips are wanted and the decoder can seek, only these are decoded. Before rounding to float16, they
    differ by at most 2e-5 from the same clips of the whole track, except for the random noise that an AAC decoder adds.
    Memory holds the clips and at most the spectrogram of the whole track.

    Args:
        path: the file.
        name: name of the file in error messages.
        config: settings of the front end.
        clips_per_track: number of clips; None means all.
        max_hours: limit of the track's length, if the whole track has to be decoded.

    Raises:
        AudioTooLongError: the track must be decoded as a whole, and is longer than `max_hours`.
        AudioError: the file cannot be decoded; the subclass says why.
    """
    # Nearly all files are decoded once; see `audio.mixing`.
    mixer = Mixer()
    result = _decode(path, name, config, clips_per_track, max_hours, mixer)
    if mixer.is_unsure:
        mixer = Mixer(separate=True)
        result = _decode(path, name, config, clips_per_track, max_hours, mixer)
    if mixer.loudest is not None:
        result = _decode(path, name, config, clips_per_track, max_hours, Mixer(mixer.loudest))
    return result


def _decode(
    path: Path, name: str, config: FeatureConfig, clips_per_track: int | None, max_hours: float, mixer: Mixer
) -> TrackClips:
    """Return the clips as `track_clips` does, of channels that `mixer` mixes."""
    if clips_per_track is not None:
        # A file in which seeking fails may still play from its beginning, for example a FLAC after a large ID3 tag.
        with contextlib.suppress(AudioCorruptError), reader.open_audio(path, name, mixer) as audio:
            return _decode_clips_alone(audio, config, clips_per_track) or _decode_whole(
                audio, name, config, clips_per_track, max_hours
            )
    with reader.open_audio(path, name, mixer) as audio:
        return _decode_whole(audio, name, config, clips_per_track, max_hours)


def _decode_clips_alone(audio: Decoder, config: FeatureConfig, clips_per_track: int) -> TrackClips | None:
    """Seek to each clip and decode it; return None if the decoder cannot seek or the clips cover the whole track."""
    if not (audio.seeks and audio.n_samples):
        return None
    n_samples = reader.n_resampled(audio.n_samples, audio.sample_rate, config.sample_rate)
    n_frames = log_mel.n_frames(n_samples, config)
    starts = clip_starts(n_frames, config, clips_per_track)
    if len(starts) * config.clip_frames >= n_frames:
        return None
    reader.check_ends(audio)
    clips = np.stack([_decode_clip(audio, start, n_samples, config) for start in starts])
    return clips.astype(CELL_DTYPE), starts, n_samples / config.sample_rate


def _decode_clip(audio: Decoder, start: int, n_samples: int, config: FeatureConfig) -> Float32:
    """Decode the clip (T, M) that begins at the frame `start`."""
    # The first and last windows extend half a window past the clip. Before and after the track there is silence.
    begin = start * config.hop_length - config.n_fft // 2
    end = begin + (config.clip_frames - 1) * config.hop_length + config.n_fft
    samples = reader.excerpt(audio, config.sample_rate, max(0, begin), min(n_samples, end))
    return log_mel.frames_log_mel(np.pad(samples, (max(0, -begin), max(0, end - n_samples))), config)


def _decode_whole(
    audio: Decoder, name: str, config: FeatureConfig, clips_per_track: int | None, max_hours: float
) -> TrackClips:
    """Decode the whole track and cut its clips."""
    _check_length((audio.n_samples or 0) / audio.sample_rate, name, max_hours)  # before the work of decoding
    n_decoded = 0

    def count(blocks: Iterable[Float32]) -> Iterator[Float32]:
        nonlocal n_decoded
        for block in blocks:
            n_decoded += len(block)
            _check_length(n_decoded / config.sample_rate, name, max_hours)
            yield block

    cell = bytearray()  # grows in place; joining a list of arrays would need twice the memory
    for frames in log_mel.stream_log_mel(count(reader.waveform_blocks(audio, config.sample_rate)), config):
        cell += frames.astype(CELL_DTYPE).data
    n_frames = len(cell) // (CELL_DTYPE.itemsize * config.n_mels)
    starts = clip_starts(n_frames, config, clips_per_track)
    n_missing = max(0, starts[-1] + config.clip_frames - n_frames)
    cell += bytes(n_missing * config.n_mels * CELL_DTYPE.itemsize)
    spectrogram = np.frombuffer(cell, CELL_DTYPE).reshape(-1, config.n_mels)
    return cut_clips(spectrogram, starts, config), starts, n_decoded / config.sample_rate


def _check_length(duration_s: float, name: str, max_hours: float) -> None:
    if duration_s > max_hours * 3600:
        raise AudioTooLongError(f"{name}: longer than {max_hours:g} hours: if it is one track, raise --max-hours")
