"""The demo catalog: some hundreds of short songs that the project makes itself, to be tried without any music at hand.

Chinese folk tunes of the Essen collection (`musictag.corpora.essen`) are arranged for a small band
(`musictag.corpora.arrangement`, which documents each tag and its exact rule) and played on a General MIDI soundfont
(`musictag.corpora.rendering`). Every tune appears once. An artist is a made-up ensemble of one province with 3-6 songs
of its own (fewer only in the smallest catalogs), so a split by artist shares neither tune nor artist.

    python -m musictag.corpora.demo FOLDER [--n-tracks N]
"""

import argparse
import collections
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from musictag.corpora.arrangement import arrange
from musictag.corpora.essen import Tune, read_tunes
from musictag.corpora.rendering import render
from musictag.corpora.songs import Song, check_arguments, draw_tunes, write_catalog
from musictag.corpora.variants import distinct_tunes
from musictag.jobs import progress
from musictag.jobs.process import run_main

# Raised whenever the same arguments would give other songs.
DEMO_VERSION = 1


def make_demo(
    folder: Path,
    *,
    n_tracks: int = 400,
    seconds: float = 15.0,
    seed: int = 0,
    workers: int | None = None,
) -> Path:
    """Make the demo catalog in `folder`, or finish it, and return the path of its `catalog.csv`.

    The same arguments give the same waveforms; `songs.write_catalog` says what happens to a folder that is not empty,
    and what `workers` asks for. Raises `UsageError` for impossible arguments and where the packages of the demo are not
    installed.
    """
    check_arguments(n_tracks=n_tracks, seconds=seconds, seed=seed, workers=workers)
    tracks = plan_demo(n_tracks=n_tracks, seconds=seconds, seed=seed)
    tags = [arrange(track.tune, track.rng(), seconds=track.seconds).tags for track in tracks]
    return write_catalog(folder, tracks, tags, perform, workers=workers)


def plan_demo(*, n_tracks: int, seconds: float, seed: int) -> list[Song]:
    """Which tune each song plays, and who plays it; `UsageError` if there are fewer tunes than `n_tracks`."""
    chosen = draw_tunes(distinct_tunes(read_tunes()), n_tracks=n_tracks, seed=seed)
    artists = _ensembles(chosen)
    return [Song(DEMO_VERSION, index, tune, artists[tune.tune_id], seconds, seed) for index, tune in enumerate(chosen)]


def perform(track: Song) -> npt.NDArray[np.float32]:
    """The waveform of a song, (samples, channels)."""
    rng = track.rng()
    arrangement = arrange(track.tune, rng, seconds=track.seconds)
    _, sample_rate, channels = track.encoding
    return render(arrangement, rng, sample_rate=sample_rate, channels=channels, seconds=track.seconds)


def main(argv: list[str]) -> None:
    """Make the demo and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m musictag.corpora.demo", description="Make the demo catalog.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n-tracks", type=int, default=400)
    args = parser.parse_args(argv)
    progress.echo(f"{args.n_tracks} songs: {make_demo(args.folder, n_tracks=args.n_tracks)}")


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


if __name__ == "__main__":
    sys.exit(run_main(main))
