"""Kill a worker process: the job continues, or reports the failed track."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from musictag.engines import child_process
from musictag.storage import tables
from processes import command_line
from torture.runs import LIMIT_S, Job, Reference, assert_nothing_lost, descendants, wait_until

BEAM_WORKER, RAY_ACTOR, DECODER = "sdk_worker_main", "ray::MapWorker", "musictag.features.decoder_child"


def victims(job_processes: list[psutil.Process], what: str) -> list[psutil.Process]:
    """Return the processes whose command line contains `what`, without their supervisors."""
    commands = [(process, command_line(process)) for process in job_processes]
    return [process for process, command in commands if what in command and child_process.__name__ not in command]


def run_and_kill(job: Job, rng: random.Random, what: str, log: Path) -> tuple[int, str]:
    """Run a job, kill one of its processes during decoding, and return exit code and output."""
    with job.running(log) as process:
        assert wait_until(lambda: len(victims(descendants(process), DECODER)) == 2, process), log.read_text()
        time.sleep(rng.uniform(1, 2))  # a decoder takes most of a second to start
        victim = rng.choice(victims(descendants(process), what))
        print(f"\n{job.script.stem}: killed {victim.name()} ({what})")  # noqa: T201
        victim.kill()
        process.wait(LIMIT_S)
    return process.returncode, log.read_text()


def test_featurize_survives_a_killed_worker(
    featurize_job: Callable[..., Job], featurized: Reference, rng: random.Random, tmp_path: Path
) -> None:
    job = featurize_job(tmp_path)
    code, said = run_and_kill(job, rng, BEAM_WORKER, tmp_path / "log")
    assert code == 0, said
    assert "a worker process was killed" in said
    assert f"124 listed = {len(featurized.rows)} written + 0 unchanged + {len(featurized.failures)} failed" in said
    assert_nothing_lost(job, featurized)


def test_tag_survives_a_killed_actor(
    tag_job: Callable[..., Job], catalog: Path, tagged_from_audio: Reference, rng: random.Random, tmp_path: Path
) -> None:
    job = tag_job(tmp_path, "--catalog", catalog)
    code, said = run_and_kill(job, rng, RAY_ACTOR, tmp_path / "log")
    assert code == 0, said
    assert_nothing_lost(job, tagged_from_audio)


@pytest.mark.parametrize("script", ["featurize", "tag"])
def test_killed_decoder_costs_one_track_at_most(
    request: pytest.FixtureRequest, catalog: Path, rng: random.Random, tmp_path: Path, script: str
) -> None:
    if script == "featurize":
        job, reference = request.getfixturevalue("featurize_job")(tmp_path), request.getfixturevalue("featurized")
    else:
        job = request.getfixturevalue("tag_job")(tmp_path, "--catalog", catalog)
        reference = request.getfixturevalue("tagged_from_audio")
    code, said = run_and_kill(job, rng, DECODER, tmp_path / "log")
    assert code == 0, said
    errors = tables.read_columns(tables.companion_uri(job.uri, "failures"), ("error",))["error"].to_pylist()
    assert errors.count("AudioCrashError") <= 1  # none where the decoder was between two tracks
    job.run_checked(tmp_path / "again.log")
    assert_nothing_lost(job, reference)
