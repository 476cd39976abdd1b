"""A store of audio and tables that is stopped in the middle of a run, for a minute or for good."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from musictag.jobs import maintenance
from musictag.storage import staging, tables
from object_stores import free_port
from torture.runs import Job, wait_until
from torture.s3 import LISTING, N_TRACKS, proxied

STOPPED_S = 60
N_SONGS = N_TRACKS - 1
"""One of the files is empty."""


@pytest.fixture
def port() -> int:
    """The port at which jobs look for the store."""
    return free_port()


@pytest.fixture(params=["featurize", "tag from features", "tag from audio"])
def job(
    request: pytest.FixtureRequest, server: int, featurize_script: Path, tag_script: Path, model: Path, tmp_path: Path
) -> Job:
    """A job that reads and writes the store."""
    features, tags = "s3://music/features", "s3://music/tags"
    featurize = Job(featurize_script, ("--catalog", LISTING, "--features", features), features)
    if request.param == "featurize":
        return featurize
    if request.param == "tag from audio":
        source = ("--catalog", LISTING)
    else:
        featurize.run_checked(tmp_path / "featurize")
        source = ("--features", features)
    return Job(tag_script, (*source, "--model", str(model), "--tags", tags), tags)


def assert_all_are_written(job: Job, last_line: str) -> None:
    """Check the account of a job, and its table."""
    n_failed = 1 if LISTING in job.options else 0  # a features table lists no failed track
    listed, _, written = last_line.partition(" = ")
    assert listed == f"{N_SONGS + n_failed} listed"
    assert f" + {n_failed} failed (" in written
    assert len(tables.track_ids(job.uri)) == N_SONGS
    assert maintenance.verify(job.uri, LISTING if n_failed else None).problems == ()


@contextlib.contextmanager
def begun(job: Job, port: int, server: int, log: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a job in the body, which begins when the store is stopped because the first rows have been written."""
    with contextlib.ExitStack() as stack:
        with proxied(port, server) as environment:
            through = Job(job.script, (*job.options, *options), job.uri, environment)
            process = stack.enter_context(through.running(log))
            assert wait_until(lambda: has_rows(job.uri), process), log.read_text()
        yield process


def has_rows(uri: str) -> bool:
    """Return whether rows are staged or committed; this asks the store itself."""
    if not tables.table_exists(uri):
        return False
    return bool(tables.files(uri)) or next(staging.staged_files(uri), None) is not None


def test_nothing_is_lost_while_the_store_is_stopped_for_a_minute(
    job: Job, port: int, server: int, tmp_path: Path
) -> None:
    with begun(job, port, server, tmp_path / "log") as process:
        time.sleep(STOPPED_S)
        assert process.poll() is None, (tmp_path / "log").read_text()
        with proxied(port, server):
            assert process.wait(300) == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    print(f"\n{said.splitlines()[-1]}")  # noqa: T201
    assert "Traceback" not in said
    assert " + 0 unchanged + " in said.splitlines()[-1]
    assert_all_are_written(job, said.splitlines()[-1])


def test_run_ends_with_a_sentence_if_the_store_stays_away_and_the_next_goes_on(
    job: Job, port: int, server: int, tmp_path: Path
) -> None:
    with begun(job, port, server, tmp_path / "log", "--store-timeout", "0.3") as process:
        assert process.wait(300) == 1
    said = (tmp_path / "log").read_text()
    print(f"\n{said.splitlines()[-1]}")  # noqa: T201
    assert said.splitlines()[-1].startswith("error: ")
    assert "s3://music/" in said.splitlines()[-1]
    assert "Traceback" not in said
    with proxied(port, server) as environment:
        again = Job(job.script, job.options, job.uri, environment).run_checked(tmp_path / "again")
    print(again.splitlines()[-1])  # noqa: T201
    assert_all_are_written(job, again.splitlines()[-1])
