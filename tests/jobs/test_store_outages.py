"""Audio on a server that speaks S3, which is stopped while tracks are featurized."""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
import s3fs

from musictag.errors import StoreError
from musictag.features.config import FeatureConfig
from musictag.features.limits import Limits
from musictag.jobs.committer import Committer
from musictag.jobs.featurizing import Outcome, featurize_tasks
from musictag.jobs.ledger import FAILURES_SCHEMA
from musictag.jobs.output import Output
from musictag.jobs.plan_files import Task, write_plan
from musictag.jobs.shards import stage_shard
from musictag.storage import outages, tables
from object_stores import free_port, running
from plans import planned
from torture.s3 import proxied

pytestmark = pytest.mark.slow

N_TRACKS = 12
Store = Callable[[], contextlib.AbstractContextManager[object]]


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, music, write_audio) -> Iterator[Store]:
    """A function that makes the store answer; the bucket `music` holds a song."""
    port, server_port = free_port(), free_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_MAX_ATTEMPTS": "1",
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(outages, "_answered", set())
    outages._outages.clear()
    s3fs.S3FileSystem.clear_instance_cache()

    def start() -> contextlib.AbstractContextManager[object]:
        return proxied(port, server_port)

    with running(server_port, sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", server_port):
        with start():
            filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
            filesystem.mkdir("music")
            filesystem.put(str(write_audio(tmp_path / "a.wav", music(1.0), 44_100)), "music/a.wav")
        yield start
    s3fs.S3FileSystem.clear_instance_cache()


TASKS = [Task(str(n), f"s3://music/{'missing' if n == 1 else 'a'}.wav", None) for n in range(N_TRACKS)]


def failures(outcomes: list[Outcome]) -> dict[str, str]:
    return {failure["track_id"]: failure["message"] for _, failure in outcomes if failure}


def test_no_track_is_lost_while_the_store_is_stopped_for_some_seconds(store: Store) -> None:
    outcomes = featurize_tasks(TASKS, FeatureConfig(), limits=Limits(store_timeout_s=120))
    with store():
        found = [next(outcomes) for _ in range(4)]
    release = threading.Event()

    def start_again() -> None:
        time.sleep(6)
        with store():
            release.wait()

    thread = threading.Thread(target=start_again)
    thread.start()
    try:
        found += outcomes
    finally:
        release.set()
        thread.join()
    assert list(failures(found)) == ["1"]  # which is missing
    assert len(found) == N_TRACKS


def test_tracks_of_a_store_that_stays_away_fail_after_the_limit(store: Store) -> None:
    outcomes = featurize_tasks(TASKS, FeatureConfig(), limits=Limits(store_timeout_s=5))
    with store():
        found = [next(outcomes) for _ in range(4)]
    started = time.monotonic()
    found += outcomes
    assert 5 <= time.monotonic() - started < 90
    failed = failures(found)
    assert {failure["error"] for _, failure in found if failure} == {"AudioUnreachableError", "AudioMissingError"}
    assert set(failed) > {str(n) for n in range(4 + 3, N_TRACKS)}
    assert "Could not connect to the endpoint" in failed[str(N_TRACKS - 1)]


def test_parts_are_staged_and_committed_although_the_store_of_tables_is_stopped(store: Store, tmp_path: Path) -> None:
    uri, schema = "s3://music/table", pa.schema([("track_id", pa.string())])
    output = Output(uri, schema, "made_at", "p")
    with planned([(str(n), f"{n}.mp3", "e") for n in range(6)]) as made:
        plan = write_plan(made.connection, str(tmp_path / "plan"), "r1", 1, store_timeout_s=120)
    n_tries = 0

    def process(tasks: list[Task]) -> list[Outcome]:
        nonlocal n_tries
        n_tries += 1
        return [({"track_id": task.track_id}, None) for task in tasks]

    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(store())
        tables.create_table(uri, schema)
        tables.create_table(output.failures_uri, FAILURES_SCHEMA)
        committer = Committer(output, "r1", store_timeout_s=120)
        restart = threading.Timer(8, lambda: stack.enter_context(store()))
        with committer.running():
            first.close()  # the store stops
            restart.start()
            assert list(stage_shard(output, plan, 0, process)) == [6]
        restart.join()
        assert n_tries >= 1
        assert tables.track_ids(uri) == {str(n) for n in range(6)}


def test_a_part_that_begins_while_the_store_of_tables_is_stopped_is_waited_for(store: Store) -> None:
    output = Output("s3://music/table", pa.schema([("track_id", pa.string())]), "made_at", "p")
    with contextlib.ExitStack() as stack:
        with store(), planned([("a", "a.mp3", "e")]) as made:
            plan = write_plan(made.connection, "s3://music/table-plan", "r1", 1, store_timeout_s=120)
        restart = threading.Timer(5, lambda: stack.enter_context(store()))
        restart.start()
        assert list(stage_shard(output, plan, 0, lambda tasks: [({"track_id": "a"}, None)])) == [1]
        restart.join()


def test_a_store_of_tables_that_is_gone_for_good_is_an_error_after_the_limit(store: Store, tmp_path: Path) -> None:
    with planned([("a", "a.mp3", "e")]) as made:
        plan = write_plan(made.connection, str(tmp_path / "plan"), "r1", 1, store_timeout_s=10)
    started = time.monotonic()
    schema = pa.schema([("track_id", pa.string())])
    with pytest.raises(StoreError, match=r"table s3://music/table: .*connect"):
        list(stage_shard(Output("s3://music/table", schema, "made_at", "p"), plan, 0, lambda tasks: []))
    assert time.monotonic() - started >= 10
