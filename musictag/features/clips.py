"""Place the clips of a track and cut them from its log-mel spectrogram.

With `clips_per_track=None`, the clips cover the whole track, one after the other, and the last one is padded with
silence. N clips are spread evenly over the track. A track shorter than a clip has one padded clip.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from musictag.errors import UsageError
from musictag.features.config import FeatureConfig

SILENT_BELOW = 0.01
"""Log-mel value below which there is no sound; noise in the last bit of 16-bit samples has 1e-5."""

# Distance, in frames, of the candidate starts of a clip that replaces a damaged one.
_STEP = 16

Float32 = npt.NDArray[np.float32]
Frames = TypeVar("Frames", npt.NDArray[np.float16], npt.NDArray[np.float32])


def clip_starts(n_frames: int, config: FeatureConfig, clips_per_track: int | None = None) -> list[int]:
    """Return the first frame of each clip of a track with `n_frames` frames, ascending.

    N clips are centred in N equal parts of the track, and moved inwards where they would extend past its ends. A track
    with at most N clips gets all of them.

    Raises:
        UsageError: `clips_per_track` is below 1.
    """
    if clips_per_track is not None and clips_per_track < 1:
        raise UsageError(f"clips per track is {clips_per_track}: use a number from 1, or 'all'")
    n_all = max(1, -(-n_frames // config.clip_frames))
    if clips_per_track is None or clips_per_track >= n_all:
        return [clip * config.clip_frames for clip in range(n_all)]
    centres = (np.arange(clips_per_track) + 0.5) * n_frames / clips_per_track
    starts = np.round(centres - config.clip_frames / 2).astype(int)
    return [int(start) for start in np.clip(starts, 0, n_frames - config.clip_frames)]


def undamaged_clip_starts(
    n_frames: int, config: FeatureConfig, clips_per_track: int | None, is_damaged: Callable[[int], bool]
) -> list[int]:
    """Return the first frames of clips as `clip_starts` does, without those for which `is_damaged` is true.

    If N clips are wanted, a damaged one is replaced by the nearest clip that is not damaged and overlaps with no other.
    """
    wanted = clip_starts(n_frames, config, clips_per_track)
    starts = [start for start in wanted if not is_damaged(start)]
    if clips_per_track is None or len(starts) == len(wanted):
        return starts
    for damaged in (start for start in wanted if is_damaged(start)):
        places = range(damaged % _STEP, n_frames - config.clip_frames + 1, _STEP)
        for place in sorted(places, key=lambda place: abs(place - damaged)):
            overlaps = any(abs(place - start) < config.clip_frames for start in starts)
            if not overlaps and not is_damaged(place):
                starts.append(place)
                break
    return sorted(starts)


def cut_clips(log_mel: Frames, starts: list[int], config: FeatureConfig) -> Frames:
    """Return the clips (C, T, M) of a log_mel (frames, M) that begin at `starts`, padded with silence at the end."""
    n_missing = max(starts) + config.clip_frames - len(log_mel)
    padded = np.pad(log_mel, ((0, max(0, n_missing)), (0, 0)))
    if starts == list(range(0, len(padded), config.clip_frames)):  # adjacent clips: no copy is needed
        return padded.reshape(len(starts), config.clip_frames, -1)
    return np.stack([padded[start : start + config.clip_frames] for start in starts])


def is_silent(clips: npt.NDArray[np.float16]) -> bool:
    """Return whether clips (C, T, M) hold no sound: no value is as high as that of a sine wave of -80 dBFS."""
    # Halves that are not negative have the order of their bits, and integers are compared faster. The first clip with
    # sound, which nearly always is the first one, ends the search.
    limit = int(np.array(SILENT_BELOW, np.float16).view(np.uint16))
    return all(int(clip.max(initial=0)) < limit for clip in clips.view(np.uint16))


def clip_weights(start_s: npt.ArrayLike, duration_s: float, config: FeatureConfig) -> Float32:
    """Return the weight (C,) of each clip in the track's score: the share that is audio, not padding; above 0."""
    remaining = (duration_s - np.asarray(start_s, dtype=np.float64)) / config.clip_seconds
    # A track may end within the first frame of the last clip. The clip then has the weight of one frame.
    return np.clip(remaining, 1 / config.clip_frames, 1.0).astype(np.float32)
