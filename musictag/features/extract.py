"""Extract the clips of a track and make its row of the features table."""

import contextlib
import datetime
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from musictag.audio import reader
from musictag.audio.damaged import DamagedDecoder, open_damaged
from musictag.audio.decoders import Decoder
from musictag.audio.mixing import Mixer
from musictag.audio.parts import Damage
from musictag.errors import AudioCorruptError, AudioDamagedError, AudioTooLongError, AudioTruncatedError
from musictag.features import log_mel
from musictag.features.clips import clip_starts, cut_clips, is_silent, undamaged_clip_starts
from musictag.features.config import FeatureConfig
from musictag.features.limits import DEFAULT_LIMITS, Limits
from musictag.features.table import CELL_DTYPE, encode_clips
from musictag.features.track_errors import decoding_errors, vanished_files
from musictag.storage import etags, fetch
from musictag.storage.checksums import file_sha256
from musictag.storage.urls import redacted

Float32 = npt.NDArray[np.float32]


class TrackClips(NamedTuple):
    """The clips of a track."""

    clips: npt.NDArray[np.float16]
    """(C, T, M)."""
    starts: list[int]
    """First frame of each clip."""
    duration_s: float
    """Length of the track, s, with what is lost by damage."""
    damaged_s: float
    """Seconds that are lost by damage, as far as it was found."""


Decode = Callable[[Path, str, FeatureConfig, int | None, Limits], TrackClips]
"""A function with the arguments and result of `track_clips`."""


def featurize(
    track_id: str,
    uri: str,
    config: FeatureConfig,
    clips_per_track: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    decode: Decode | None = None,
    find_row: Callable[[str], dict[str, Any] | None] | None = None,
    audio_etag: str | None = None,
) -> dict[str, Any]:
    """Fetch and decode a track and return its row of the features table.

    The row has the given `audio_etag`; the store is asked if it is None. If the audio changes after it was asked for,
    the next plan finds another etag.

    The row has `clips_per_track` clips, or all if it is None. `decode` replaces `track_clips`, for example by
    `DecoderProcess.track_clips`. If `find_row` returns a row for the SHA-256 of the file, the file is not decoded, and
    that row is returned with the id, uri and etag of the track.

    Raises:
        AudioError: the track cannot be fetched or decoded; the subclass says why.
        StoreError: the folder for temporary files is full.
    """
    etag = audio_etag or etags.audio_etag(uri, limits.store_timeout_s)
    with fetch.local_audio(uri, limits.store_timeout_s) as path:
        with fetch.unreachable_errors(uri):
            sha256 = file_sha256(path)
        identity = {"track_id": track_id, "uri": redacted(uri), "audio_etag": etag or f"sha256:{sha256}"}
        if find_row is not None and (row := find_row(sha256)) is not None:
            return {**row, **identity}
        with vanished_files(path, uri), decoding_errors(uri):
            track = (decode or track_clips)(path, uri, config, clips_per_track, limits)
    return {
        **identity,
        "audio_sha256": sha256,
        "duration_s": track.duration_s,
        "n_clips": len(track.clips),
        "start_s": [start * config.hop_length / config.sample_rate for start in track.starts],
        "clips": encode_clips(track.clips),
        "feature_hash": config.feature_hash,
        "featurized_at": datetime.datetime.now(datetime.UTC),
        "silent": is_silent(track.clips),
        "damaged_s": track.damaged_s,
    }


def track_clips(
    path: Path,
    name: str,
    config: FeatureConfig,
    clips_per_track: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> TrackClips:
    """Return the clips of a local file.

    If only some clips are wanted and the decoder can seek, only these are decoded. Before rounding to float16, they
    differ by at most 2e-5 from the same clips of the whole track, except for the random noise that an AAC decoder adds.
    Memory holds the clips and at most the spectrogram of the whole track.

    If a decoder reports damage, the undamaged parts of the whole track are decoded. Clips that touch damage are left
    out; if a number of clips is wanted, other clips near them are taken.

    Args:
        path: the file.
        name: name of the file in error messages.
        config: settings of the front end.
        clips_per_track: number of clips; None means all.
        limits: limits of the track's length and damage.

    Raises:
        AudioTooLongError: the track must be decoded as a whole, and is longer than `limits.max_hours`.
        AudioDamagedError, AudioTruncatedError: more than `limits.max_damage` is lost, or how much is lost is not known.
        AudioError: the file cannot be decoded; the subclass says why.
    """

    def decode(mixer: Mixer) -> TrackClips:
        try:
            return _decode_undamaged(path, name, config, clips_per_track, limits, mixer)
        except (AudioDamagedError, AudioTruncatedError) as error:
            if not limits.max_damage:
                raise
            try:
                with open_damaged(path, name, mixer, limits.max_damage) as audio:
                    return _decode_whole(audio, name, config, clips_per_track, limits)
            except AudioDamagedError as reason:
                raise type(error)(f"{error}; {reason}") from reason
            except AudioTooLongError as reason:
                raise AudioTooLongError(
                    f"{reason} (it is damaged, and around damage whole tracks are decoded: {error})"
                ) from reason

    # Nearly all files are decoded once; see `audio.mixing`.
    mixer = Mixer()
    result = decode(mixer)
    if mixer.is_unsure:
        mixer = Mixer(separate=True)
        result = decode(mixer)
    if mixer.better_channels is not None:
        result = decode(Mixer(mixer.better_channels))
    return result


def _decode_undamaged(
    path: Path, name: str, config: FeatureConfig, clips_per_track: int | None, limits: Limits, mixer: Mixer
) -> TrackClips:
    """Return the clips as `track_clips` does, of channels that `mixer` mixes; damage is an error."""
    if clips_per_track is not None:
        # A file in which seeking fails may still play from its beginning, for example a FLAC after a large ID3 tag.
        with contextlib.suppress(AudioCorruptError), reader.open_audio(path, name, mixer) as audio:
            return _decode_clips_alone(audio, config, clips_per_track) or _decode_whole(
                audio, name, config, clips_per_track, limits
            )
    with reader.open_audio(path, name, mixer) as audio:
        return _decode_whole(audio, name, config, clips_per_track, limits)


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
    return TrackClips(clips.astype(CELL_DTYPE), starts, n_samples / config.sample_rate, 0.0)


def _decode_clip(audio: Decoder, start: int, n_samples: int, config: FeatureConfig) -> Float32:
    """Decode the clip (T, M) that begins at the frame `start`."""
    # The first and last windows extend half a window past the clip. Before and after the track there is silence.
    begin = start * config.hop_length - config.n_fft // 2
    end = begin + (config.clip_frames - 1) * config.hop_length + config.n_fft
    samples = reader.excerpt(audio, config.sample_rate, max(0, begin), min(n_samples, end))
    return log_mel.frames_log_mel(np.pad(samples, (max(0, -begin), max(0, end - n_samples))), config)


def _decode_whole(
    audio: Decoder, name: str, config: FeatureConfig, clips_per_track: int | None, limits: Limits
) -> TrackClips:
    """Decode the whole track and cut its clips. Raises `AudioDamagedError` if each clip touches damage."""
    _check_length((audio.n_samples or 0) / audio.sample_rate, name, limits)  # before the work of decoding
    n_decoded = 0

    def count(blocks: Iterable[Float32]) -> Iterator[Float32]:
        nonlocal n_decoded
        for block in blocks:
            n_decoded += len(block)
            _check_length(n_decoded / config.sample_rate, name, limits)
            yield block

    cell = bytearray()  # grows in place; joining a list of arrays would need twice the memory
    for frames in log_mel.stream_log_mel(count(reader.waveform_blocks(audio, config.sample_rate)), config):
        cell += frames.astype(CELL_DTYPE).data
    n_frames = len(cell) // (CELL_DTYPE.itemsize * config.n_mels)
    damage = audio.damage if isinstance(audio, DamagedDecoder) else Damage()
    starts = undamaged_clip_starts(n_frames, config, clips_per_track, lambda start: _is_damaged(start, damage, config))
    if not starts:
        raise AudioDamagedError("every clip is damaged")
    n_missing = max(0, starts[-1] + config.clip_frames - n_frames)
    cell += bytes(n_missing * config.n_mels * CELL_DTYPE.itemsize)
    spectrogram = np.frombuffer(cell, CELL_DTYPE).reshape(-1, config.n_mels)
    duration_s = n_decoded / config.sample_rate
    return TrackClips(cut_clips(spectrogram, starts, config), starts, duration_s, damage.seconds)


def _is_damaged(start: int, damage: Damage, config: FeatureConfig) -> bool:
    """Return whether the clip that begins at the frame `start` depends on lost samples."""
    margin_s = config.n_fft / 2 / config.sample_rate + reader.RESAMPLER_MARGIN_S
    begin_s, end_s = (
        frame * config.hop_length / config.sample_rate for frame in (start, start + config.clip_frames - 1)
    )
    return damage.touches(begin_s - margin_s, end_s + margin_s)


def _check_length(duration_s: float, name: str, limits: Limits) -> None:
    if duration_s > limits.max_hours * 3600:
        raise AudioTooLongError(
            f"{name}: longer than {limits.max_hours:g} hours: if it is one track, raise --max-hours"
        )
