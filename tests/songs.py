"""A song in each format, and how it is decoded around damage."""

import functools
from pathlib import Path

import numpy as np

from conftest import make_music
from encoding import SOUNDFILE_OF_SUFFIX, by_ffmpeg, by_soundfile
from musictag.audio.damaged import open_damaged
from musictag.audio.mixing import Mixer
from musictag.audio.parts import Damage
from musictag.audio.reader import open_audio
from musictag.features.config import FeatureConfig

SECONDS, RATE = 20.0, 44_100
CONFIG = FeatureConfig(clip_frames=31)  # half a second
TOLERANCES = {
    # Opus converges after a gap. AAC fills bands with noise, which is other noise after a gap.
    ".opus": 0.02, ".webm": 0.03, ".aac": 0.06, ".m4a": 0.06, ".mp4": 0.06, ".mka": 0.06,
}  # fmt: skip
BY_FFMPEG = {
    ".aac": ("adts", "aac", {}),
    ".m4a": ("mp4", "aac", {"movflags": "faststart"}),
    ".mp4": ("mp4", "aac", {}),
    ".mka": ("matroska", "aac", {}),
    ".webm": ("webm", "libopus", {}),
    ".mp2": ("mp2", "mp2", {}),
    ".wma": ("asf", "wmav2", {}),
    ".wv": ("wv", "wavpack", {}),
    ".tta": ("tta", "tta", {}),
}


@functools.cache
def samples_at(rate: int) -> np.ndarray:
    return make_music(SECONDS, rate)


@functools.cache
def song(suffix: str) -> bytes:
    """Return a file with the same music in the format of a suffix."""
    rate = 48_000 if suffix in (".opus", ".webm") else RATE
    if suffix in BY_FFMPEG:
        return by_ffmpeg(samples_at(rate), rate, *BY_FFMPEG[suffix])
    return by_soundfile(samples_at(rate), rate, *SOUNDFILE_OF_SUFFIX[suffix])


def undamaged(path: Path) -> np.ndarray:
    with open_audio(path, "a") as audio:
        return np.concatenate(list(audio.blocks()))


def around_damage(path: Path, max_damage: float = 0.5) -> tuple[np.ndarray, Damage, int]:
    """Return the samples, the damage and the sample rate of a damaged file."""
    with open_damaged(path, "a", Mixer(), max_damage) as audio:
        return np.concatenate(list(audio.blocks())), audio.damage, audio.sample_rate


def differences(samples: np.ndarray, expected: np.ndarray, damage: Damage, rate: int) -> np.ndarray:
    """Return the absolute differences of samples outside the damage."""
    n_samples = min(len(samples), len(expected))
    is_good = np.ones(n_samples, np.bool_)
    for begin_s, end_s in damage.spans:
        is_good[int(begin_s * rate) : int(np.ceil(end_s * rate))] = False
    return np.abs(samples[:n_samples] - expected[:n_samples])[is_good]
