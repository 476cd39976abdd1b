"""The tagging job: speed relative to its parts, speed and memory over 1,000 to 100,000 tracks, cost of a second run.

JOB_TRACKS sets the number of tracks of the largest run.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import pytest
import threadpoolctl

from benchmarks.tagging import CONFIG, add_tracks, networks_clips_per_s
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.features import extract
from musictag.jobs import progress
from musictag.jobs.machine import n_cores
from musictag.models.published import pretrained

SCRIPT = Path(__file__).parents[2] / "pipelines" / "tag.py"
JOB_TRACKS = int(os.environ.get("JOB_TRACKS", "100000"))
SIZES = (JOB_TRACKS // 100, JOB_TRACKS // 10, JOB_TRACKS)
NEW_SHARE, MAX_RERUN_SHARE = 0.01, 0.02
MIN_RELATIVE_SPEED, MIN_SPEED_RATIO, MAX_MEMORY_RATIO = 0.9, 0.9, 1.2
MAX_BYTES = 4 << 30
# Tracks of a first run, and tracks that a second run has in addition: the difference excludes start-up.
N_FIRST, N_MORE, N_CLIPS = 64, JOB_TRACKS // 100, 10
# The same for tracks that are decoded.
N_FIRST_SONGS, N_MORE_SONGS = 16, JOB_TRACKS // 500
# Clips per track in a large table: ten would fill the disk and take an hour.
FEW_CLIPS = 2
SONG_S, SAMPLE_RATE, ROUNDS = 240, 44_100, 5
MIB = 1 << 20


class Run(NamedTuple):
    """Time and memory of a run."""

    seconds: float
    """With start-up."""
    peak: int
    """Bytes of all its processes together; shared memory counts once."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with its own MLflow store, in which a published model is the champion."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    mlflow_runs.connect()
    mlflow_registry.set_alias(mlflow_registry.register_any(mlflow_registry.fetch(pretrained.DEFAULT)), "champion")
    return tmp_path


def memory(driver: psutil.Process) -> int:
    """Return the proportional set size of a process and its descendants, bytes."""
    total = 0
    for process in [driver, *driver.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def tag(written: int, *options: object, unchanged: int = 0) -> Run:
    """Run the job, and check that it tags `written` tracks."""
    started, peak = time.perf_counter(), 0
    with Path("log").open("w+") as log:
        process = subprocess.Popen([sys.executable, str(SCRIPT), *map(str, options)], stdout=log, stderr=log)
        driver = psutil.Process(process.pid)
        while process.poll() is None:
            peak = max(peak, memory(driver))
            time.sleep(1)
        seconds = time.perf_counter() - started
        log.seek(0)
        account = f"{written + unchanged:,} listed = {written:,} written + {unchanged:,} unchanged + 0 failed"
        assert account in (said := log.read()), said
    return Run(seconds, peak)


def start_up(n_tracks: int, run: Run) -> str:
    return f"the first {n_tracks:,} tracks took {run.seconds:.1f} s with start-up"


def test_tagging_from_features_relative_to_the_network(home: Path) -> None:
    tracks = [N_FIRST, N_FIRST + N_MORE]
    for n_tracks in tracks:
        add_tracks(f"features-{n_tracks}", range(n_tracks), N_CLIPS)
    of_network = networks_clips_per_s(pretrained.DEFAULT)
    first, both = (tag(n, "--features", f"features-{n}", "--tags", f"tags-{n}") for n in tracks)
    of_network = (of_network + networks_clips_per_s(pretrained.DEFAULT)) / 2
    of_job = N_MORE * N_CLIPS / (both.seconds - first.seconds)
    progress.echo(
        f"\n{N_MORE:,} tracks of {N_CLIPS} clips on {n_cores()} cores: from features {of_job:.0f} clips/s, "
        f"{of_job / of_network:.2f} of the {of_network:.0f} of the network alone; {start_up(N_FIRST, first)}"
    )
    assert of_job >= MIN_RELATIVE_SPEED * of_network


def test_tagging_from_audio_relative_to_its_parts(
    home: Path, music: Callable[..., np.ndarray], write_audio: Callable[..., Path]
) -> None:
    song = write_audio(home / "song.mp3", music(SONG_S, SAMPLE_RATE), SAMPLE_RATE)
    tracks = [N_FIRST_SONGS, N_FIRST_SONGS + N_MORE_SONGS]
    for n_tracks in tracks:
        (home / f"music-{n_tracks}").mkdir()
        for n in range(n_tracks):
            (home / f"music-{n_tracks}/{n:05d}.mp3").symlink_to(song)

    def seconds_of_parts() -> tuple[float, float]:
        """Time to featurize one track and to score its clips, on one core."""
        of_features = []
        with threadpoolctl.threadpool_limits(1):
            for _ in range(ROUNDS):
                started = time.perf_counter()
                n_clips = extract.featurize("a", str(song), CONFIG)["n_clips"]
                of_features.append(time.perf_counter() - started)
        return float(np.median(of_features)), n_clips * n_cores() / networks_clips_per_s(pretrained.DEFAULT)

    before = seconds_of_parts()
    first, both = (tag(n, "--catalog", f"music-{n}", "--tags", f"tags-{n}") for n in tracks)
    featurizing, scoring = np.mean([before, seconds_of_parts()], axis=0)
    of_parts = (featurizing + scoring) * N_MORE_SONGS / n_cores()
    of_job = both.seconds - first.seconds
    progress.echo(
        f"\n{N_MORE_SONGS:,} tracks of {SONG_S} s on {n_cores()} cores: "
        f"from audio {N_MORE_SONGS / of_job:.1f} tracks/s, "
        f"{of_parts / of_job:.2f} of what its parts have ({1000 * featurizing:.0f} ms to featurize and "
        f"{1000 * scoring:.0f} ms to score a track on one core); {start_up(N_FIRST_SONGS, first)}"
    )
    assert of_job <= of_parts / MIN_RELATIVE_SPEED


def test_speed_and_memory_with_a_hundred_times_as_many_tracks(home: Path) -> None:
    runs, n_held = {}, 0
    for n_tracks in SIZES:
        add_tracks("features", range(n_held, n_tracks), FEW_CLIPS)
        runs[n_tracks], n_held = tag(n_tracks, "--features", "features", "--tags", f"tags-{n_tracks}"), n_tracks
        run = runs[n_tracks]
        progress.echo(
            f"\n{n_tracks:,} tracks of {FEW_CLIPS} clips: {run.seconds:.1f} s, at most {run.peak / MIB:,.0f} MiB"
        )
    n_new = round(NEW_SHARE * n_held)
    add_tracks("features", range(n_held, n_held + n_new), FEW_CLIPS)
    again = tag(n_new, "--features", "features", "--tags", f"tags-{n_held}", unchanged=n_held)
    small, medium, large = runs.values()
    few, some, all_of_them = SIZES
    early = (some - few) / (medium.seconds - small.seconds)
    late = (all_of_them - some) / (large.seconds - medium.seconds)
    of_start = small.seconds - few / late
    share = (again.seconds - of_start) / (large.seconds - of_start)
    progress.echo(
        f"{early:.0f} tracks/s from {few:,} to {some:,} tracks, {late:.0f} from there to {all_of_them:,}; "
        f"start-up {of_start:.1f} s; a second run, {n_new:,} tracks new: {again.seconds:.1f} s, {share:.1%} of the "
        f"first, start-up aside, at most {again.peak / MIB:,.0f} MiB"
    )
    assert late >= MIN_SPEED_RATIO * early
    assert large.peak <= min(MAX_MEMORY_RATIO * small.peak, MAX_BYTES)
    # Start-up is left out: it is small compared with a first run over real tracks, which have more clips.
    assert share <= MAX_RERUN_SHARE
