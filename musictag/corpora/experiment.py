"""The experiment's catalog: 1040 songs of 30 seconds with 23 tags, each song from a folk tune of its own.

What `musictag.corpora.demo` makes in small, made to be judged: `musictag.corpora.manners` draws how a song is played;
`band`, `accompaniment` and `drumming` arrange it; `rendering` plays it; `labels` holds the rule of every tag. Variants
of a melody have one artist, so a split by artist shares no melody. docs/experiment-corpus.md is the data sheet.

    python -m musictag.corpora.experiment FOLDER [--n-tracks N] [--seed SEED]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.signal

from musictag.corpora.band import compose
from musictag.corpora.essen import read_tunes
from musictag.corpora.rendering import render
from musictag.corpora.songs import Song, check_arguments, draw_tunes, write_catalog
from musictag.corpora.variants import distinct_tunes, melody_families
from musictag.jobs import progress
from musictag.jobs.process import run_main

N_TRACKS = 1040
SECONDS = 30.0
# Another text whenever the same arguments would give other songs.
_VERSION = "experiment 1"


def make_experiment(
    folder: Path, *, n_tracks: int = N_TRACKS, seconds: float = SECONDS, seed: int = 0, workers: int | None = None
) -> Path:
    """Make the experiment's catalog in `folder`, or finish it, and return the path of its `catalog.csv`.

    The same arguments give the same waveforms; `songs.write_catalog` says what happens to a folder that is not empty,
    and what `workers` asks for. Raises `UsageError` for impossible arguments and where music21, pretty_midi or
    tinysoundfont is not installed.
    """
    check_arguments(n_tracks=n_tracks, seconds=seconds, seed=seed, workers=workers)
    songs = plan_experiment(n_tracks=n_tracks, seconds=seconds, seed=seed)
    tags = [compose(song.tune, song.rng(), seconds=song.seconds).tags for song in songs]
    return write_catalog(folder, songs, tags, perform, workers=workers)


def plan_experiment(*, n_tracks: int = N_TRACKS, seconds: float = SECONDS, seed: int = 0) -> list[Song]:
    """Which tune each song plays, its family as the artist; `UsageError` if there are fewer tunes than `n_tracks`."""
    tunes = distinct_tunes(read_tunes())
    singers = {
        tune.tune_id: " ".join(f"Singers of {tunes[first].title or tunes[first].tune_id}".split())
        for tune, first in zip(tunes, melody_families(tunes), strict=True)
    }
    chosen = draw_tunes(tunes, n_tracks=n_tracks, seed=seed)
    return [Song(_VERSION, index, tune, singers[tune.tune_id], seconds, seed) for index, tune in enumerate(chosen)]


def perform(song: Song) -> npt.NDArray[np.float32]:
    """The waveform of a song, (samples, channels): the band, as one of many machines recorded it."""
    rng = song.rng()
    arrangement = compose(song.tune, rng, seconds=song.seconds)
    _, sample_rate, channels = song.encoding
    waveform = render(arrangement, rng, sample_rate=sample_rate, channels=channels, seconds=song.seconds)
    return record(waveform, rng, sample_rate=sample_rate, peak=arrangement.peak)


def record(
    waveform: npt.NDArray[np.float32], rng: np.random.Generator, *, sample_rate: int, peak: float
) -> npt.NDArray[np.float32]:
    """The waveform (samples, channels) without what a recorder loses above 4.5-11 kHz and below 30-200 Hz.

    `peak` is its largest sample afterwards.
    """
    highest_hz = np.exp(rng.uniform(np.log(4500), np.log(11_000)))
    lowest_hz = np.exp(rng.uniform(np.log(30), np.log(200)))
    for order, edge_hz, kind in ((int(rng.integers(1, 3)), highest_hz, "lowpass"), (1, lowest_hz, "highpass")):
        waveform = scipy.signal.sosfilt(
            scipy.signal.butter(order, edge_hz, kind, fs=sample_rate, output="sos"), waveform, axis=0
        )
    recorded: npt.NDArray[np.float32] = (waveform * (peak / np.abs(waveform).max())).astype(np.float32)
    return recorded


def main(argv: list[str]) -> None:
    """Make the catalog and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m musictag.corpora.experiment", description="Make the catalog.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n-tracks", type=int, default=N_TRACKS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    catalog = make_experiment(args.folder, n_tracks=args.n_tracks, seed=args.seed)
    progress.echo(f"{args.n_tracks} songs: {catalog}")


if __name__ == "__main__":
    sys.exit(run_main(main))
