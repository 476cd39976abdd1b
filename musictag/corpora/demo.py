"""The demo catalog: some hundreds of short songs that the project makes itself, to be tried without any music at hand.

Chinese folk tunes of the Essen collection (`musictag.corpora.essen`) are arranged for a small band
(`musictag.corpora.arrangement`, which documents each tag and its exact rule) and played on a General MIDI soundfont
(`musictag.corpora.rendering`). Every tune appears once. An artist is a made-up ensemble of one province with 3-6 songs
of its own (fewer only in the smallest catalogs), so a split by artist shares neither tune nor artist.

    python -m musictag.corpora.demo FOLDER [--n-tracks N]
"""

import argparse
import collections
import concurrent.futures
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import multiprocessing
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from musictag import cli, console
from musictag.corpora.arrangement import arrange
from musictag.corpora.essen import Tune, read_tunes
from musictag.corpora.rendering import render
from musictag.errors import UsageError

# Raised whenever the same arguments would give other songs.
DEMO_VERSION = 1
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
class DemoTrack:
    """What one song of the catalog is made from."""

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
        made_from = json.dumps([DEMO_VERSION, self.seed, self.index, self.seconds, self.tune.tune_id])
        fingerprint = hashlib.sha256(made_from.encode()).hexdigest()[:8]
        return f"audio/{self.index:04d}-{self.tune.tune_id}-{fingerprint}.{self.encoding[0]}"

    def rng(self) -> np.random.Generator:
        """A generator of this track's own, so that neither order nor number of workers changes a song."""
        return np.random.default_rng((self.seed, self.index))


def make_demo(
    folder: Path,
    *,
    n_tracks: int = 400,
    seconds: float = 15.0,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Make the demo catalog in `folder`, or finish it, and return the path of its `catalog.csv`.

    The same arguments give the same waveforms. A catalog already made with them is left as it is; of a half-made one
    only the missing songs are rendered. `catalog.csv` is written last; audio of earlier, other arguments then goes.
    `workers` processes render (None: one per core). With 1 this process renders; with more, the caller's main module
    must be importable without side effects, because they are spawned. Raises `UsageError` for impossible arguments and
    where the packages of the demo are not installed.
    """
    if n_tracks < 1 or seconds <= 0 or seed < 0 or (workers is not None and workers < 1):
        raise UsageError(
            f"n_tracks={n_tracks}, seconds={seconds}, seed={seed}, workers={workers}: "
            "seed must be at least 0, the others more"
        )
    tracks = plan_demo(n_tracks=n_tracks, seconds=seconds, seed=seed)
    catalog, text = folder / "catalog.csv", _catalog_text(tracks)
    missing = [track for track in tracks if not (folder / track.uri).exists()]
    if not missing and catalog.exists() and catalog.read_text(encoding="utf-8") == text:
        return catalog
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    for _ in console.bar(_write_all(missing, folder, workers or cli.n_cores()), "make songs", len(missing), "song"):
        pass
    _replace(catalog, lambda part: part.write_text(text, encoding="utf-8"))
    kept = {folder / track.uri for track in tracks}
    for path in (folder / "audio").iterdir():
        if _AUDIO_NAME.fullmatch(path.name) and path not in kept:
            path.unlink()
    return catalog


def plan_demo(*, n_tracks: int, seconds: float, seed: int) -> list[DemoTrack]:
    """Which tune each song plays, and who plays it; `UsageError` if there are fewer tunes than `n_tracks`."""
    tunes = _distinct(read_tunes())
    if n_tracks > len(tunes):
        raise UsageError(f"n_tracks={n_tracks}: the collection has only {len(tunes)} distinct tunes")
    odds = [
        (_TRIPLE_ODDS if tune.metre in ("3/4", "3/8") else 1) * (_HAOZI_ODDS if tune.genre == "haozi" else 1)
        for tune in tunes
    ]
    # Weighted sampling without replacement by exponential keys (Efraimidis and Spirakis, 2006): a larger catalog of
    # the same seed begins with the tunes of a smaller one.
    keys = np.random.default_rng(seed).exponential(size=len(tunes)) / odds
    chosen = [tunes[i] for i in np.argsort(keys)[:n_tracks]]
    artists = _ensembles(chosen)
    return [DemoTrack(index, tune, artists[tune.tune_id], seconds, seed) for index, tune in enumerate(chosen)]


def main(argv: list[str]) -> None:
    """Make the demo and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m musictag.corpora.demo", description="Make the demo catalog.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n-tracks", type=int, default=400)
    args = parser.parse_args(argv)
    console.say(f"{args.n_tracks} songs: {make_demo(args.folder, n_tracks=args.n_tracks)}")


def _distinct(tunes: Iterable[Tune]) -> list[Tune]:
    """Leave out what is not a tune of its own: an id or a title seen before, or the same opening in any key."""
    seen: set[object] = set()
    distinct = []
    for tune in tunes:
        first = next(pitch for pitch, _ in tune.notes if pitch is not None)
        opening = tuple((None if pitch is None else pitch - first, length) for pitch, length in tune.notes[:16])
        marks = {opening, ("id", tune.tune_id), ("title", tune.title)}
        if not marks & seen:
            distinct.append(tune)
        seen |= marks
    return distinct


def _ensembles(tunes: Sequence[Tune]) -> dict[str, str]:
    """The ensemble that plays each tune, by tune id: 3-6 tunes of one province, or of several where it has fewer."""
    per_region = collections.Counter(tune.region for tune in tunes)
    homes: dict[str, list[str]] = {}
    for tune in tunes:
        home = tune.region if tune.region and per_region[tune.region] >= 3 else "Wandering"
        homes.setdefault(home, []).append(tune.tune_id)
    artists = {}
    for home, tune_ids in homes.items():
        n_ensembles = max(1, round(len(tune_ids) / 4.5))
        for position, tune_id in enumerate(tune_ids):
            artists[tune_id] = f"{home} Ensemble {position % n_ensembles + 1}"
    return artists


def _catalog_text(tracks: Iterable[DemoTrack]) -> str:
    lines = io.StringIO()
    writer = csv.writer(lines, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for track in tracks:
        tags = arrange(track.tune, track.rng(), seconds=track.seconds).tags
        album = f"Folk songs of {track.tune.region or 'China'}"
        title = track.tune.title or track.tune.tune_id
        writer.writerow((f"{track.index:04d}", track.uri, track.artist, album, title, ";".join(tags)))
    return lines.getvalue()


def _write_all(tracks: Sequence[DemoTrack], folder: Path, workers: int) -> Iterator[None]:
    """Write the audio of `tracks`, yielding after each."""
    if workers == 1 or len(tracks) <= 1:
        yield from map(_write, tracks, itertools.repeat(folder))
        return
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(min(workers, len(tracks)), mp_context=spawn) as pool:
        yield from pool.map(_write, tracks, itertools.repeat(folder))


def _write(track: DemoTrack, folder: Path) -> None:
    rng = track.rng()
    arrangement = arrange(track.tune, rng, seconds=track.seconds)
    kind, sample_rate, channels = track.encoding
    waveform = render(arrangement, rng, sample_rate=sample_rate, channels=channels, seconds=track.seconds)

    def encode(part: Path) -> None:
        with soundfile.SoundFile(part, "w", sample_rate, channels, **_WRITE_OPTIONS[kind]) as sound:
            # A second at a time: libsndfile's Vorbis encoder overflows the stack when given a long block.
            for start in range(0, len(waveform), sample_rate):
                sound.write(waveform[start : start + sample_rate])

    _replace(folder / track.uri, encode)


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make the file under another name first, so that a file that is there is whole."""
    part = path.with_name(f".{path.name}.part")
    write(part)
    part.replace(path)


if __name__ == "__main__":
    sys.exit(cli.run(main))
