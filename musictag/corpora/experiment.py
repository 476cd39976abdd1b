"""Make the experiment's catalog: 1040 songs of 30 seconds with 23 tags, each song from a different folk tune.

`performance_style` chooses how a song is played; `band`, `accompaniment` and `drumming` arrange it; `rendering` renders
it; `labels` has the rule of every tag. Variants of a melody have the same artist, so a split by artist never separates
them. The data sheet is docs/experiment-corpus.md.

    python -m musictag.corpora.experiment FOLDER [--n-tracks N] [--seed SEED]
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.signal

from musictag.corpora.band import arrange
from musictag.corpora.essen import read_tunes
from musictag.corpora.rendering import render
from musictag.corpora.songs import Song, check_arguments, sample_tunes, write_catalog
from musictag.corpora.variants import deduplicate_tunes, group_variants
from musictag.jobs import progress
from musictag.jobs.entry_point import run_main

N_TRACKS = 1040
SECONDS = 30.0
# Change this text when the same arguments would give other songs: every file name has a hash of it.
_VERSION = "experiment 1"


def make_experiment(
    folder: Path, *, n_tracks: int = N_TRACKS, seconds: float = SECONDS, seed: int = 0, workers: int | None = None
) -> Path:
    """Make the experiment's catalog in `folder`, or finish it, and return the path of its `catalog.csv`.

    The same arguments give the same waveforms. See `songs.write_catalog` for existing files and `workers`. Raises
    `UsageError` if an argument is out of range, or if music21, pretty_midi or tinysoundfont is not installed.
    """
    check_arguments(n_tracks=n_tracks, seconds=seconds, seed=seed, workers=workers)
    songs = plan_experiment(n_tracks=n_tracks, seconds=seconds, seed=seed)
    tags = [arrange(song.tune, song.rng(), seconds=song.seconds).tags for song in songs]
    return write_catalog(folder, songs, tags, render_song, workers=workers)


def plan_experiment(*, n_tracks: int = N_TRACKS, seconds: float = SECONDS, seed: int = 0) -> list[Song]:
    """Choose the tune of each song; the artist is named after the tune's group of variants."""
    tunes = deduplicate_tunes(read_tunes())
    artists = {
        tune.tune_id: " ".join(f"Singers of {tunes[first].title or tunes[first].tune_id}".split())
        for tune, first in zip(tunes, group_variants(tunes), strict=True)
    }
    chosen = sample_tunes(tunes, n_tracks=n_tracks, seed=seed)
    return [Song(_VERSION, index, tune, artists[tune.tune_id], seconds, seed) for index, tune in enumerate(chosen)]


def render_song(song: Song) -> npt.NDArray[np.float32]:
    """Return the waveform of a song, (samples, channels)."""
    rng = song.rng()
    arrangement = arrange(song.tune, rng, seconds=song.seconds)
    _, sample_rate, channels = song.encoding
    waveform = render(arrangement, rng, sample_rate=sample_rate, channels=channels, seconds=song.seconds)
    return simulate_recording(waveform, rng, sample_rate=sample_rate, peak=arrangement.peak)


def simulate_recording(
    waveform: npt.NDArray[np.float32], rng: np.random.Generator, *, sample_rate: int, peak: float
) -> npt.NDArray[np.float32]:
    """Return the waveform (samples, channels) with a random bandwidth: up to 4.5-11 kHz, from 30-200 Hz.

    The result is scaled so that its largest sample is `peak`.
    """
    cutoff_high_hz = np.exp(rng.uniform(np.log(4500), np.log(11_000)))
    cutoff_low_hz = np.exp(rng.uniform(np.log(30), np.log(200)))
    for order, edge_hz, kind in ((int(rng.integers(1, 3)), cutoff_high_hz, "lowpass"), (1, cutoff_low_hz, "highpass")):
        waveform = scipy.signal.sosfilt(
            scipy.signal.butter(order, edge_hz, kind, fs=sample_rate, output="sos"), waveform, axis=0
        )
    recorded: npt.NDArray[np.float32] = (waveform * (peak / np.abs(waveform).max())).astype(np.float32)
    return recorded


def main(argv: list[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m musictag.corpora.experiment", description="Make the experiment's catalog."
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n-tracks", type=int, default=N_TRACKS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    catalog = make_experiment(args.folder, n_tracks=args.n_tracks, seed=args.seed)
    progress.echo(f"{args.n_tracks} songs: {catalog}")


if __name__ == "__main__":
    sys.exit(run_main(main))
