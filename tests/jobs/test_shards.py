"""A worker stages each part once, also after another worker was lost or does the same."""

import itertools
import threading

import pyarrow as pa
import pytest

from musictag.errors import ConflictError, StoreError
from musictag.jobs import plan_files
from musictag.jobs.committer import Committer
from musictag.jobs.ledger import FAILURES_SCHEMA
from musictag.jobs.output import Output
from musictag.jobs.plan_files import PlanFiles, write_plan
from musictag.jobs.shards import stage_shard
from musictag.jobs.staged_parts import StagedParts
from musictag.storage import commits, staging, tables
from plans import planned
from sample_tables import SCHEMA, make_table


@pytest.fixture
def uri(tmp_path):
    return make_table(tmp_path)


@pytest.fixture
def plan(tmp_path) -> PlanFiles:
    """Nine tasks in three parts of one shard."""
    with planned([(f"t{n}", f"{n}.mp3", "e") for n in range(9)]) as made:
        files = write_plan(made.connection, str(tmp_path / "plan"), "r1", 3)
    assert files.n_shards == 3
    return files


def succeed(tasks):
    return [({"track_id": task.track_id, "n": 1}, None) for task in tasks]


def fail(tasks):
    return [(None, {"track_id": task.track_id, "attempts": 1, "error": "AudioCorruptError"}) for task in tasks]


def output(uri, producer="p"):
    return Output(uri, SCHEMA, "made_at", producer)


def staged_parts(uri, producer="p", *, is_taken_over=False):
    tables.create_table(output(uri).failures_uri, FAILURES_SCHEMA)
    return StagedParts(output(uri, producer), "r1", is_taken_over=is_taken_over)


def make_committer(uri):
    tables.create_table(output(uri).failures_uri, FAILURES_SCHEMA)
    return Committer(output(uri), "r1")


def stage(uri, plan, process=succeed, shard=0):
    return list(stage_shard(output(uri), plan, shard, process))


def test_rows_and_failures_are_staged_and_then_committed(uri, plan, tmp_path):
    assert stage(uri, plan) == [3]
    assert stage(uri, plan, fail, shard=1) == [3]
    assert tables.track_ids(uri) == set()
    parts = staged_parts(uri)
    parts.collect()
    assert parts.n_tracks == 6
    assert parts.commit() == 6
    assert tables.track_ids(uri) == {"t0", "t1", "t2"}
    assert tables.track_ids(parts.output.failures_uri) == {"t3", "t4", "t5"}
    parts.collect()
    assert parts.commit() == 0


def test_staged_parts_are_not_done_again(uri, plan):
    assert stage(uri, plan) == [3]
    assert stage(uri, plan, lambda tasks: pytest.fail("done again")) == []


def test_a_worker_that_is_lost_leaves_no_manifest(uri, plan):
    def crash(tasks):
        yield from succeed(tasks[:1])
        raise RuntimeError("lost")

    with pytest.raises(RuntimeError, match="lost"):
        stage(uri, plan, crash)
    assert staging.manifest_paths(uri, "r1") == []
    assert stage(uri, plan) == [3]


def test_a_part_that_two_workers_do_at_once_is_committed_once(uri, plan, tmp_path):
    both_work = threading.Barrier(2)

    def wait(tasks):
        both_work.wait(10)
        return succeed(tasks)

    workers = [threading.Thread(target=stage, args=(uri, plan, wait)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(staging.manifest_paths(uri, "r1")) == 2
    parts = staged_parts(uri)
    parts.collect()
    assert parts.commit() == parts.n_tracks == 3
    assert sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist()) == ["t0", "t1", "t2"]


def test_a_manifest_that_arrives_after_its_part_was_committed_is_not_counted(uri, plan, tmp_path):
    stage(uri, plan)
    parts = staged_parts(uri)
    parts.collect()
    parts.commit()
    (path,) = staging.manifest_paths(uri, "r1")
    staging.write_manifest(uri, staging.read_manifest(uri, path))
    parts.collect()
    assert parts.commit() == 0
    assert parts.n_tracks == 3


def test_what_a_worker_stages_after_its_part_was_committed_is_ignored(uri, plan, tmp_path):
    stage(uri, plan)
    parts = staged_parts(uri)
    parts.collect()
    parts.commit()
    staging.delete_run(uri, "r1")  # as a run that takes over does; then the worker wakes up
    stage(uri, plan)
    late = staged_parts(uri, is_taken_over=True)
    late.collect()
    late.commit()
    late.discard()
    assert sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist()) == ["t0", "t1", "t2"]
    assert staging.manifest_paths(uri, "r1") == []


def test_parts_of_another_producer_are_not_committed(uri, plan, tmp_path):
    stage(uri, plan)
    parts = staged_parts(uri, producer="another")
    parts.collect()
    assert parts.commit() == 0


def test_failures_are_committed_if_only_their_commit_was_lost(uri, plan, tmp_path, monkeypatch):
    stage(uri, plan, lambda tasks: [*succeed(tasks[:2]), *fail(tasks[2:])])
    parts = staged_parts(uri)
    parts.collect()
    monkeypatch.setattr(StagedParts, "_commit_failures", lambda self: (_ for _ in ()).throw(StoreError("gone")))
    with pytest.raises(StoreError, match="gone"):
        parts.commit()
    monkeypatch.undo()
    next_run = staged_parts(uri, is_taken_over=True)
    next_run.collect()
    next_run.commit()
    assert tables.read_columns(uri, ("track_id",))["track_id"].to_pylist() == ["t0", "t1"]
    assert tables.read_columns(parts.output.failures_uri, ("track_id",))["track_id"].to_pylist() == ["t2"]


def test_commits_go_on_while_the_body_runs_and_after_it_raises(uri, plan, tmp_path, monkeypatch):
    monkeypatch.setattr("musictag.jobs.committer.POLL_S", 0.01)
    monkeypatch.setattr("musictag.jobs.committer.COMMIT_S", 0.01)
    committer = make_committer(uri)

    def work():
        with committer.running():
            stage(uri, plan)
            for _ in range(1_000):
                if tables.track_ids(uri):
                    break
            assert tables.track_ids(uri) == {"t0", "t1", "t2"}
            stage(uri, plan, shard=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert len(tables.track_ids(uri)) == 6


def test_rows_that_arrive_in_the_driver_are_committed_at_the_end(uri, tmp_path):
    committer = make_committer(uri)
    with committer.running():
        committer.add(pa.Table.from_pylist([{"track_id": "a", "n": 1}], SCHEMA), fail([]))
        committer.add(SCHEMA.empty_table(), [{"track_id": "b", "attempts": 1}])
        assert tables.track_ids(uri) == set()
    assert tables.track_ids(uri) == {"a"}
    assert tables.track_ids(committer.output.failures_uri) == {"b"}
    assert committer.n_tracks == 2


@pytest.fixture
def long_plan(tmp_path, monkeypatch) -> PlanFiles:
    """Eight tasks in eight parts of two shards."""
    monkeypatch.setattr(plan_files, "MAX_SHARDS", 2)
    with planned([(f"t{n}", f"{n}.mp3", "e") for n in range(8)]) as made:
        return write_plan(made.connection, str(tmp_path / "plan"), "r1", 8)


def test_commits_of_long_shards_go_on_after_a_commit_without_response(uri, long_plan, monkeypatch):
    assert (long_plan.n_shards, long_plan.n_parts) == (2, 8)
    parts, add_files = staged_parts(uri), commits.add_files

    def stage_parts(shard, n, process=succeed):
        return list(itertools.islice(stage_shard(output(uri), long_plan, shard, process), n))

    def commit():
        parts.collect()
        parts.commit()
        return sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist())

    stage_parts(0, 2)
    stage_parts(1, 1, fail)
    assert commit() == ["t0", "t1"]
    stage_parts(1, 1)

    def without_response(*arguments):
        monkeypatch.setattr(commits, "add_files", add_files)
        add_files(*arguments)
        raise ConflictError("the response was lost")

    monkeypatch.setattr(commits, "add_files", without_response)
    assert commit() == ["t0", "t1", "t5"]
    stage_parts(0, 2)
    stage_parts(1, 2)
    assert commit() == ["t0", "t1", "t2", "t3", "t5", "t6", "t7"]
    assert tables.track_ids(parts.output.failures_uri) == {"t4"}


def test_part_that_another_run_has_taken_over_is_left_out(uri, plan, monkeypatch):
    stage(uri, plan)
    parts, paths = staged_parts(uri), staging.manifest_paths(uri, "r1")
    monkeypatch.setattr(staging, "manifest_paths", lambda *_: paths)  # listed before the other run deleted it
    staging.delete_manifest(uri, paths[0])
    parts.collect()
    assert (parts.n_tracks, parts.commit()) == (0, 0)


def test_two_drivers_that_commit_the_same_parts_commit_them_once(uri, plan, tmp_path):
    stage(uri, plan)
    first, second = staged_parts(uri), staged_parts(uri, is_taken_over=True)
    for each in (first, second):
        each.collect()
    assert (second.commit(), first.commit()) == (3, 0)
    assert sorted(tables.read_columns(uri, ("track_id",))["track_id"].to_pylist()) == ["t0", "t1", "t2"]
