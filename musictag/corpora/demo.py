"""Make the demo catalog: 400 short songs, to try the project without any music.

The songs are made like those of `experiment`, but fewer, shorter and without a simulated recording: the band arranges
Chinese folk tunes (`band`) and tags them (`labels` has the rule of every tag). Every tune appears once. An artist is an
invented ensemble of one province with 3-6 songs (fewer only in the smallest catalogs), so a split by artist shares
neither tune nor artist.

    python -m musictag.corpora.demo FOLDER [--n-tracks N]
"""

import argparse
import collections
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musictag.corpora.band import arrange
from musictag.corpora.essen import Tune, read_tunes
from musictag.corpora.rendering import render
from musictag.corpora.songs import Song, check_arguments, sample_tunes, write_catalog
from musictag.corpora.variants import deduplicate_tunes
from musictag.jobs import progress
from musictag.jobs.entry_point import run_main

# Raise this number when the same arguments would give other songs: every file name has a hash of it.
DEMO_VERSION = 2


def make_demo(
    folder: Path,
    *,
    n_tracks: int = 400,
    seconds: float = 15.0,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Make the demo catalog in `folder`, or finish it, and return the path of its `catalog.csv`.

    The same arguments give the same waveforms. See `songs.write_catalog` for existing files and `workers`. Raises
    `UsageError` if an argument is out of range, or if music21, pretty_midi or tinysoundfont is not installed.
    """
    check_arguments(n_tracks=n_tracks, seconds=seconds, seed=seed, workers=workers)
    songs = plan_demo(n_tracks=n_tracks, seconds=seconds, seed=seed)
    tags = [arrange(song.tune, song.rng(), seconds=song.seconds).tags for song in songs]
    return write_catalog(folder, songs, tags, render_song, workers=workers)


def plan_demo(*, n_tracks: int, seconds: float, seed: int) -> list[Song]:
    """Choose the tune and the artist of each song."""
    chosen = sample_tunes(deduplicate_tunes(read_tunes()), n_tracks=n_tracks, seed=seed)
    artists = _assign_ensembles(chosen)
    return [Song(DEMO_VERSION, index, tune, artists[tune.tune_id], seconds, seed) for index, tune in enumerate(chosen)]


def render_song(song: Song) -> npt.NDArray[np.float32]:
    """Return the waveform of a song, (samples, channels)."""
    rng = song.rng()
    arrangement = arrange(song.tune, rng, seconds=song.seconds)
    _, sample_rate, channels = song.encoding
    return render(arrangement, rng, sample_rate=sample_rate, channels=channels, seconds=song.seconds)


def main(argv: list[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m musictag.corpora.demo", description="Make the demo catalog.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n-tracks", type=int, default=400)
    args = parser.parse_args(argv)
    progress.echo(f"{args.n_tracks} songs: {make_demo(args.folder, n_tracks=args.n_tracks)}")


def _assign_ensembles(tunes: Sequence[Tune]) -> dict[str, str]:
    """Return the name of an ensemble for each tune id: it plays 3-6 tunes of one province, or of several small ones."""
    tunes_per_region = collections.Counter(tune.region for tune in tunes)
    tune_ids_by_home: dict[str, list[str]] = {}
    for tune in tunes:
        home = tune.region if tune.region and tunes_per_region[tune.region] >= 3 else "Wandering"
        tune_ids_by_home.setdefault(home, []).append(tune.tune_id)
    artists = {}
    for home, tune_ids in tune_ids_by_home.items():
        n_ensembles = max(1, round(len(tune_ids) / 4.5))
        for position, tune_id in enumerate(tune_ids):
            artists[tune_id] = f"{home} Ensemble {position % n_ensembles + 1}"
    return artists


if __name__ == "__main__":
    sys.exit(run_main(main))
