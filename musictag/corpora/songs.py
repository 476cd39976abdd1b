"""Write a catalog of generated songs: choose tunes, render audio, and finish an interrupted run.

`demo` and `experiment` share this module. Each has its own function that renders a song.
"""

import concurrent.futures
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from musictag.corpora.essen import Tune
from musictag.corpora.melody import beats_per_bar
from musictag.errors import UsageError
from musictag.jobs import progress
from musictag.jobs.machine import n_cores

_COLUMNS = ("track_id", "uri", "artist", "album", "title", "tags")
# (file type, sample rate in Hz, channels), used in turn, so that every decoder and resampling ratio is exercised.
_ENCODINGS = (
    ("ogg", 22_050, 2),
    ("mp3", 22_050, 2),
    ("ogg", 22_050, 1),
    ("mp3", 44_100, 1),
    ("flac", 22_050, 1),
    ("ogg", 44_100, 2),
    ("mp3", 22_050, 1),
    ("ogg", 22_050, 2),
)
_WRITE_OPTIONS: dict[str, dict[str, Any]] = {
    "ogg": {"format": "OGG", "subtype": "VORBIS", "compression_level": 0.8},
    # libsndfile cannot decode its own variable-bitrate files (mono at 22.05 kHz), so the bitrate is constant.
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.7},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
}
_AUDIO_NAME = re.compile(r"\d{4}-\w+-[0-9a-f]{8}\.(ogg|mp3|flac)")
# Weights of rare kinds of tune (others: 1). They make sure that the tags of rare kinds have enough songs.
_TRIPLE_WEIGHT, _HAOZI_WEIGHT = 3.0, 2.5


@dataclasses.dataclass(frozen=True)
class Song:
    """A song that can be rendered: its audio depends only on these fields."""

    version: int | str
    """Version of the corpus: it changes when the same other fields would give another song."""
    index: int
    tune: Tune
    artist: str
    seconds: float
    seed: int

    @property
    def encoding(self) -> tuple[str, int, int]:
        """File type, sample rate in Hz, channels."""
        return _ENCODINGS[self.index % len(_ENCODINGS)]

    @property
    def uri(self) -> str:
        """Path relative to the catalog. It contains a fingerprint of everything that the audio depends on."""
        identity = json.dumps([self.version, self.seed, self.index, self.seconds, self.tune.tune_id])
        fingerprint = hashlib.sha256(identity.encode()).hexdigest()[:8]
        return f"audio/{self.index:04d}-{self.tune.tune_id}-{fingerprint}.{self.encoding[0]}"

    def rng(self) -> np.random.Generator:
        """Return a new generator seeded for this song, so that the order and number of workers do not matter."""
        return np.random.default_rng((self.seed, self.index))


RenderSong = Callable[[Song], npt.NDArray[np.float32]]
"""Returns the waveform (samples, channels) of a song at the sample rate and channels of its encoding.

With several workers it must be a function of a module, because it is pickled.
"""


def check_arguments(*, n_tracks: int, seconds: float, seed: int, workers: int | None) -> None:
    """Raise `UsageError` if an argument is out of range."""
    if n_tracks < 1 or seconds <= 0 or seed < 0 or (workers is not None and workers < 1):
        raise UsageError(
            f"n_tracks={n_tracks}, seconds={seconds}, seed={seed}, workers={workers}: "
            "seed must be at least 0, the others positive"
        )


def sample_tunes(tunes: Sequence[Tune], *, n_tracks: int, seed: int) -> list[Tune]:
    """Return `n_tracks` random tunes, each at most once; rare kinds of tune have a higher weight.

    A longer sample with the same seed begins with the shorter one. Raises `UsageError` if there are too few tunes.
    """
    if n_tracks > len(tunes):
        raise UsageError(f"n_tracks={n_tracks}: the collection has only {len(tunes)} distinct tunes")
    weights = [
        (_TRIPLE_WEIGHT if beats_per_bar(tune) == 3 else 1) * (_HAOZI_WEIGHT if tune.genre == "haozi" else 1)
        for tune in tunes
    ]
    # Weighted sampling without replacement by exponential keys (Efraimidis and Spirakis, 2006).
    keys = np.random.default_rng(seed).exponential(size=len(tunes)) / weights
    return [tunes[i] for i in np.argsort(keys)[:n_tracks]]


def write_catalog(
    folder: Path, songs: Sequence[Song], tags: Sequence[Sequence[str]], render_song: RenderSong, *, workers: int | None
) -> Path:
    """Write missing audio of `songs` to `folder/audio`, then `folder/catalog.csv`, and return the catalog's path.

    A finished catalog with the same songs and tags is not changed. Generated songs that are not in this catalog are
    deleted; files with other names are kept. `workers` is the number of processes (None: one per core). With 1, songs
    are rendered in this process. With more, the caller's main module must be importable without side effects, because
    the processes are spawned.
    """
    catalog, text = folder / "catalog.csv", _catalog_text(songs, tags)
    missing = [song for song in songs if not (folder / song.uri).exists()]
    if not missing and catalog.exists() and catalog.read_text(encoding="utf-8") == text:
        return catalog
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    written = _write_songs(missing, folder, render_song, workers or n_cores())
    for _ in progress.bar(written, "make songs", len(missing), "song"):
        pass
    _replace(catalog, lambda part: part.write_text(text, encoding="utf-8"))
    current = {folder / song.uri for song in songs}
    for path in (folder / "audio").iterdir():
        if _AUDIO_NAME.fullmatch(path.name) and path not in current:
            path.unlink()
    return catalog


def _catalog_text(songs: Sequence[Song], tags: Sequence[Sequence[str]]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for song, song_tags in zip(songs, tags, strict=True):
        album = f"Folk songs of {song.tune.region or 'China'}"
        title = song.tune.title or song.tune.tune_id
        writer.writerow((f"{song.index:04d}", song.uri, song.artist, album, title, ";".join(song_tags)))
    return lines.getvalue()


def _write_songs(songs: Sequence[Song], folder: Path, render_song: RenderSong, workers: int) -> Iterator[None]:
    """Write the audio of `songs` and yield after each."""
    arguments = (songs, itertools.repeat(folder), itertools.repeat(render_song))
    if workers == 1 or len(songs) <= 1:
        yield from map(_write_song, *arguments)
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(songs)), mp_context=spawn) as pool:
        yield from pool.map(_write_song, *arguments)


def _write_song(song: Song, folder: Path, render_song: RenderSong) -> None:
    waveform = render_song(song)
    kind, sample_rate, channels = song.encoding

    def encode(part: Path) -> None:
        with soundfile.SoundFile(part, "w", sample_rate, channels, **_WRITE_OPTIONS[kind]) as sound:
            # One second at a time: libsndfile's Vorbis encoder overflows the stack if a block is long.
            for start in range(0, len(waveform), sample_rate):
                sound.write(waveform[start : start + sample_rate])

    _replace(folder / song.uri, encode)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path and rename it to `path`, so that a file is never incomplete."""
    part = path.with_name(f".{path.name}.part")
    write(part)
    part.replace(path)
