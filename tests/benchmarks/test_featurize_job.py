"""Speed of the Beam job relative to the library: 500 tracks of four formats, 1 and 2 workers, without start-up."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl

from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.jobs import progress
from musictag.jobs.machine import n_cores

SCRIPT = Path(__file__).parents[2] / "pipelines" / "featurize.py"
SUFFIXES, SECONDS, SAMPLE_RATE = (".mp3", ".flac", ".ogg", ".m4a"), 240, 44_100
N_TRACKS = int(os.environ.get("JOB_TRACKS", "500"))
# One part for each of two workers, so that every process is started.
N_FIRST = 48
MIN_RELATIVE_SPEED = 0.9

Songs = list[Path]


@pytest.fixture(scope="module")
def songs(
    tmp_path_factory: pytest.TempPathFactory, music: Callable[..., np.ndarray], write_audio: Callable[..., Path]
) -> Songs:
    """Tracks that are links to one file of each format."""
    folder, samples = tmp_path_factory.mktemp("songs"), music(SECONDS, SAMPLE_RATE)
    files = [write_audio(folder / f"song{suffix}", samples, SAMPLE_RATE) for suffix in SUFFIXES]
    tracks = [folder / f"track-{n:03d}{files[n % len(files)].suffix}" for n in range(N_FIRST + N_TRACKS)]
    for n, track in enumerate(tracks):
        track.symlink_to(files[n % len(files)].name)
    return tracks


def library_seconds(songs: Songs) -> float:
    """Featurize the songs in this process on one core; return the seconds."""
    with threadpoolctl.threadpool_limits(1):
        started = time.perf_counter()
        for song in songs:
            extract.featurize(song.name, str(song), FeatureConfig())
        return time.perf_counter() - started


def job_seconds(folder: Path, songs: Songs, n_workers: int) -> float:
    """Run the script over the songs; return the seconds, with start-up."""
    folder.mkdir()
    rows = (f"{song.name},{song}" for song in songs)
    (folder / "catalog.csv").write_text("\n".join(["track_id,uri", *rows, ""]))
    command = [sys.executable, str(SCRIPT), "--runner=DirectRunner", f"--direct_num_workers={n_workers}"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, "--catalog", "catalog.csv", "--features", "features"],
        cwd=folder, check=False, capture_output=True, text=True,
    )  # fmt: skip
    taken = time.perf_counter() - started
    assert f"{len(songs)} listed = {len(songs)} written + 0 unchanged + 0 failed" in done.stdout, done.stderr
    return taken


def test_job_speed_per_core_relative_to_the_library(songs: Songs, tmp_path: Path) -> None:
    first, rest = songs[:N_FIRST], songs[N_FIRST:]
    halves = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    library_seconds(first)  # warms up
    of_library = library_seconds(halves[0])  # half of the songs before the job and half after it
    of_job = {}
    for n_workers in range(1, n_cores() + 1):
        start_up = job_seconds(tmp_path / f"{n_workers}-first", first, n_workers)
        of_job[n_workers] = job_seconds(tmp_path / f"{n_workers}-all", songs, n_workers) - start_up
        progress.echo(f"\n{n_workers} workers: the first {len(first)} tracks took {start_up:.1f} s with start-up")
    of_library += library_seconds(halves[1])
    shares = {n_workers: of_library / (n_workers * seconds) for n_workers, seconds in of_job.items()}
    progress.echo(
        f"{len(rest)} tracks of {SECONDS} s, tracks/s: "
        f"the library on one core {len(rest) / of_library:.2f}; "
        + "; ".join(
            f"{n} workers {len(rest) / of_job[n]:.2f}, {shares[n]:.2f} of the library's on each core" for n in of_job
        )
    )
    assert min(shares.values()) >= MIN_RELATIVE_SPEED
