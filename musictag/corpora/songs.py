"""A catalog whose songs we make: which tunes they play, and their audio, written once and finished where it stopped.

Each corpus gives its own `Perform`, the sound of a song; what is here is the same for all.
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
from musictag.errors import UsageError
from musictag.jobs import progress
from musictag.jobs.process import n_cores

_COLUMNS = ("track_id", "uri", "artist", "album", "title", "tags")
# (file type, sample rate in Hz, channels), track after track: each decoder and resampling ratio gets its share.
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
    # At a constant rate: what libsndfile writes at a variable one, mono at 22.05 kHz, its own decoder finds broken.
    "mp3": {"format": "MP3", "subtype": "MPEG_LAYER_III", "bitrate_mode": "CONSTANT", "compression_level": 0.7},
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
}
_AUDIO_NAME = re.compile(r"\d{4}-\w+-[0-9a-f]{8}\.(ogg|mp3|flac)")
# Rare kinds of tune are drawn more often than others, so that their tags have enough songs.
_TRIPLE_ODDS, _HAOZI_ODDS = 3.0, 2.5


@dataclasses.dataclass(frozen=True)
class Song:
    """What one song of a catalog is made from."""

    version: int | str
    """Changes whenever a corpus would make another song of the same seed, index, length and tune."""
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
        """Path relative to the catalog; it holds a fingerprint of all that the audio depends on."""
        made_from = json.dumps([self.version, self.seed, self.index, self.seconds, self.tune.tune_id])
        fingerprint = hashlib.sha256(made_from.encode()).hexdigest()[:8]
        return f"audio/{self.index:04d}-{self.tune.tune_id}-{fingerprint}.{self.encoding[0]}"

    def rng(self) -> np.random.Generator:
        """A generator of this song's own, so that neither order nor number of workers changes it."""
        return np.random.default_rng((self.seed, self.index))


Perform = Callable[[Song], npt.NDArray[np.float32]]
"""The waveform (samples, channels) of a song, at the sample rate and channels of its encoding; a module's function."""


def check_arguments(*, n_tracks: int, seconds: float, seed: int, workers: int | None) -> None:
    """Raise `UsageError` for what can make no catalog."""
    if n_tracks < 1 or seconds <= 0 or seed < 0 or (workers is not None and workers < 1):
        raise UsageError(
            f"n_tracks={n_tracks}, seconds={seconds}, seed={seed}, workers={workers}: "
            "seed must be at least 0, the others more"
        )


def draw_tunes(tunes: Sequence[Tune], *, n_tracks: int, seed: int) -> list[Tune]:
    """`n_tracks` of `tunes`, each at most once; a longer draw of the same seed begins with a shorter one.

    Raises `UsageError` if there are fewer.
    """
    if n_tracks > len(tunes):
        raise UsageError(f"n_tracks={n_tracks}: the collection has only {len(tunes)} distinct tunes")
    odds = [
        (_TRIPLE_ODDS if tune.metre in ("3/4", "3/8") else 1) * (_HAOZI_ODDS if tune.genre == "haozi" else 1)
        for tune in tunes
    ]
    # Weighted sampling without replacement by exponential keys (Efraimidis and Spirakis, 2006).
    keys = np.random.default_rng(seed).exponential(size=len(tunes)) / odds
    return [tunes[i] for i in np.argsort(keys)[:n_tracks]]


def write_catalog(
    folder: Path, songs: Sequence[Song], tags: Sequence[Sequence[str]], perform: Perform, *, workers: int | None
) -> Path:
    """Write the audio of `songs` that is missing in `folder`, then `catalog.csv`, and return its path.

    A catalog already there with these songs and tags is left as it is. `catalog.csv` is written last; audio of other
    songs of ours then goes. `workers` processes perform (None: one per core). With 1 this process does; with more, the
    caller's main module must be importable without side effects, because they are spawned.
    """
    catalog, text = folder / "catalog.csv", _catalog_text(songs, tags)
    missing = [song for song in songs if not (folder / song.uri).exists()]
    if not missing and catalog.exists() and catalog.read_text(encoding="utf-8") == text:
        return catalog
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    written = _write_all(missing, folder, perform, workers or n_cores())
    for _ in progress.bar(written, "make songs", len(missing), "song"):
        pass
    _replace(catalog, lambda part: part.write_text(text, encoding="utf-8"))
    kept = {folder / song.uri for song in songs}
    for path in (folder / "audio").iterdir():
        if _AUDIO_NAME.fullmatch(path.name) and path not in kept:
            path.unlink()
    return catalog


def _catalog_text(songs: Sequence[Song], tags: Sequence[Sequence[str]]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for song, its_tags in zip(songs, tags, strict=True):
        album = f"Folk songs of {song.tune.region or 'China'}"
        title = song.tune.title or song.tune.tune_id
        writer.writerow((f"{song.index:04d}", song.uri, song.artist, album, title, ";".join(its_tags)))
    return lines.getvalue()


def _write_all(songs: Sequence[Song], folder: Path, perform: Perform, workers: int) -> Iterator[None]:
    """Write the audio of `songs`, yielding after each."""
    arguments = (songs, itertools.repeat(folder), itertools.repeat(perform))
    if workers == 1 or len(songs) <= 1:
        yield from map(_write, *arguments)
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(songs)), mp_context=spawn) as pool:
        yield from pool.map(_write, *arguments)


def _write(song: Song, folder: Path, perform: Perform) -> None:
    waveform = perform(song)
    kind, sample_rate, channels = song.encoding

    def encode(part: Path) -> None:
        with soundfile.SoundFile(part, "w", sample_rate, channels, **_WRITE_OPTIONS[kind]) as sound:
            # A second at a time: libsndfile's Vorbis encoder overflows the stack when given a long block.
            for start in range(0, len(waveform), sample_rate):
                sound.write(waveform[start : start + sample_rate])

    _replace(folder / song.uri, encode)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make the file under another name first, so that a file that is there is whole."""
    part = path.with_name(f".{path.name}.part")
    write(part)
    part.replace(path)
