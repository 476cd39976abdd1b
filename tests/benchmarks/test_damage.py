"""Measure for each format and kind of damage how many seconds are left out, and how much scores change.

EMOTIFY names the folder of the Emotify set.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr

from damage import inserted, lost, overwritten, zeroed
from encoding import by_ffmpeg, by_soundfile
from musictag.cli.model_commands import find_model
from musictag.errors import AudioError
from musictag.features.clips import clip_weights
from musictag.features.extract import TrackClips, track_clips
from musictag.jobs import progress
from musictag.models.published import pretrained
from musictag.tagging.tagger import Tagger

EMOTIFY = Path(os.environ.get("EMOTIFY", "../shared/data/emotify"))
SONGS = ("classical_18", "electronic_88", "rock_75")
SECONDS, RATE = 60, 44_100

Encode = Callable[[np.ndarray], bytes]
FORMATS: dict[str, tuple[str, Encode]] = {
    "MP3, 128 kbit/s": (".mp3", lambda x: by_ffmpeg(x, RATE, "mp3", "libmp3lame", {})),
    "MP3 without a Xing header": (".mp3", lambda x: by_ffmpeg(x, RATE, "mp3", "libmp3lame", {"write_xing": "0"})),
    "MP2, 192 kbit/s": (".mp2", lambda x: by_ffmpeg(x, RATE, "mp2", "mp2", {}, bit_rate=192_000)),
    "FLAC": (".flac", lambda x: by_soundfile(x, RATE, "FLAC", "PCM_16")),
    "Ogg Vorbis": (".ogg", lambda x: by_soundfile(x, RATE, "OGG", "VORBIS")),
    "Opus": (".opus", lambda x: by_soundfile(soxr.resample(x, RATE, 48_000), 48_000, "OGG", "OPUS")),
    "AAC (ADTS)": (".aac", lambda x: by_ffmpeg(x, RATE, "adts", "aac", {})),
    "AAC (M4A)": (".m4a", lambda x: by_ffmpeg(x, RATE, "mp4", "aac", {"movflags": "faststart"})),
    "ALAC (M4A)": (".m4a", lambda x: by_ffmpeg(x, RATE, "mp4", "alac", {"movflags": "faststart"})),
    "AAC (Matroska)": (".mka", lambda x: by_ffmpeg(x, RATE, "matroska", "aac", {})),
    "WMA": (".wma", lambda x: by_ffmpeg(x, RATE, "asf", "wmav2", {})),
    "WavPack": (".wv", lambda x: by_ffmpeg(x, RATE, "wv", "wavpack", {})),
    "TTA": (".tta", lambda x: by_ffmpeg(x, RATE, "tta", "tta", {})),
    "WAV": (".wav", lambda x: by_soundfile(x, RATE, "WAV", "PCM_16")),
}
DAMAGE: dict[str, Callable[[bytes, int], bytes]] = {
    "100 bytes overwritten": overwritten,
    "300 bytes lost": lost,
    "2 KiB zeroed": zeroed,
    "24 KiB inserted": inserted,
    "the last 2 % missing": lambda data, _: data[: len(data) * 98 // 100],
}


def minute_of(song: str) -> np.ndarray:
    """Return a minute of stereo music: the excerpt of half a minute, twice, and its second channel later."""
    samples, rate = soundfile.read(EMOTIFY / "audio" / f"{song}.ogg", dtype="float32", always_2d=True)
    mono = soxr.resample(samples[:, 0], rate, RATE)
    twice = np.resize(mono, SECONDS * RATE)
    return np.stack([twice, np.roll(twice, 200)], axis=1)


def scores_of(tagger: Tagger, track: TrackClips) -> np.ndarray:
    config = tagger.spec.feature_config
    start_s = np.array(track.starts) * config.hop_length / config.sample_rate
    weights = clip_weights(start_s, track.duration_s, config)
    return tagger.raw_track_scores(tagger.raw_clip_scores(track.clips), track.clips, weights)


def outcome(tagger: Tagger, path: Path, expected: np.ndarray) -> tuple[float, float] | None:
    """Return the seconds that are left out and the largest change of a score; None for a failure."""
    try:
        track = track_clips(path, "a", tagger.spec.feature_config)
    except AudioError:
        return None
    return track.damaged_s, float(np.abs(scores_of(tagger, track) - expected).max())


@pytest.mark.parametrize("name", FORMATS)
def test_what_damage_costs(tmp_path: Path, name: str) -> None:
    tagger = Tagger.load(find_model(pretrained.DEFAULT))
    suffix, encode = FORMATS[name]
    found: dict[str, list[tuple[float, float] | None]] = {kind: [] for kind in DAMAGE}
    places = np.random.default_rng(1).uniform(0.1, 0.9, 5)
    for song in SONGS:
        data = encode(minute_of(song))
        path = tmp_path / f"{song}{suffix}"
        path.write_bytes(data)
        expected = scores_of(tagger, track_clips(path, "a", tagger.spec.feature_config))
        for kind, damage in DAMAGE.items():
            for place in places:
                path.write_bytes(damage(data, int(len(data) * place)))
                found[kind].append(outcome(tagger, path, expected))
    cells = []
    for outcomes in found.values():
        rows = [each for each in outcomes if each is not None]
        n_failed = len(outcomes) - len(rows)
        parts = [f"{n_failed} of {len(outcomes)} fail"] * bool(n_failed)
        if rows:
            n_missed = sum(seconds == 0 for seconds, _ in rows)
            parts += [f"{np.median([seconds for seconds, _ in rows]):.2f} s, {max(change for _, change in rows):.3f}"]
            parts += [f"{n_missed} of {len(outcomes)} not found"] * bool(n_missed)
        cells.append("; ".join(parts))
    progress.echo(f"| {name} | {' | '.join(cells)} |")
    if suffix in (".mp3", ".flac", ".ogg", ".opus"):
        assert all(each is not None for each in found["300 bytes lost"])
