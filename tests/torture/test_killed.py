"""Kill each job at twenty moments, the process group or the driver alone; the next run must complete the tables."""

import dataclasses
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from torture.runs import (
    Job,
    Reference,
    assert_nothing_lost,
    descendants,
    draw,
    kill_group,
    names,
    wait_for_orphans,
)

N_KILLS = 20
MAX_DRAWS = 5
"""How many moments are drawn, at most: a moment is drawn again if the job ended before it."""


def kill(job: Job, rng: random.Random, number: int, reference: Reference, log: Path, before: Reference | None) -> str:
    """Start a job and kill it, every other time the driver alone; return a description of the moment."""
    for _ in range(MAX_DRAWS):
        job.begin_with(before)
        moment = draw(rng, number, reference)
        moment = dataclasses.replace(moment, n_files=moment.n_files + job.n_files(moment.pattern))
        started = time.monotonic()
        with job.running(log) as process:
            if not moment.wait(job, process):
                continue
            orphans = names(descendants(process))
            if number // 2 % 2:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
            else:
                kill_group(process)
            killed = time.monotonic()
            wait_for_orphans(orphans)
        what = "driver" if number // 2 % 2 else "group"
        left = job.n_rows() if Path(job.uri, "_delta_log").exists() else 0
        return (
            f"{what} killed {killed - started:.2f} s after its start ({moment}), orphans gone "
            f"{time.monotonic() - killed:.1f} s later; {left} of {len(reference.rows)} tracks were written"
        )
    raise AssertionError(f"the job ended before each of {MAX_DRAWS} moments")


def torture(
    job: Job, rng: random.Random, number: int, reference: Reference, folder: Path, before: Reference | None = None
) -> None:
    """Kill a job that starts with the tables of `before`, run it again, and compare with `reference`."""
    said = kill(job, rng, number, reference, folder / "killed.log", before)
    started = time.monotonic()
    end = job.run_checked(folder / "again.log").splitlines()[-1]
    print(f"\n{job.script.stem} {number}: {said}; rerun {time.monotonic() - started:.1f} s: {end}")  # noqa: T201
    assert_nothing_lost(job, reference)


@pytest.mark.parametrize("number", range(N_KILLS))
def test_killed_featurize_is_finished_by_the_next_run(
    featurize_job: Callable[..., Job], featurized: Reference, rng: random.Random, tmp_path: Path, number: int
) -> None:
    torture(featurize_job(tmp_path), rng, number, featurized, tmp_path)


@pytest.mark.parametrize("number", range(N_KILLS // 2))
def test_killed_tag_from_audio_is_finished_by_the_next_run(
    tag_job: Callable[..., Job],
    catalog: Path,
    tagged_from_audio: Reference,
    rng: random.Random,
    tmp_path: Path,
    number: int,
) -> None:
    """The job starts its own Ray, which dies with it."""
    torture(tag_job(tmp_path, "--catalog", catalog), rng, number, tagged_from_audio, tmp_path)


@pytest.mark.parametrize("number", range(N_KILLS // 2, N_KILLS))
def test_killed_tag_from_features_is_finished_by_the_next_run(
    tag_job: Callable[..., Job],
    features: Path,
    tagged_from_features: Reference,
    ray_cluster: str,
    rng: random.Random,
    tmp_path: Path,
    number: int,
) -> None:
    """The job uses a Ray cluster that outlives it."""
    job = tag_job(tmp_path, "--features", features, ray_address=ray_cluster)
    torture(job, rng, number, tagged_from_features, tmp_path)


@pytest.mark.parametrize("number", range(1, N_KILLS // 2))
def test_killed_tag_with_another_model_is_finished_by_the_next_run(
    tag_job: Callable[..., Job],
    features: Path,
    other_model: Path,
    tagged_from_features: Reference,
    tagged_by_another: Reference,
    ray_cluster: str,
    rng: random.Random,
    tmp_path: Path,
    number: int,
) -> None:
    """The last commit removes the rows of the first model."""
    job = tag_job(tmp_path, "--features", features, ray_address=ray_cluster, by=other_model)
    torture(job, rng, number, tagged_by_another, tmp_path, before=tagged_from_features)
