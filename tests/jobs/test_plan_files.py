"""Tasks are written to files, shard by shard, and each worker reads its share."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.errors import StoreError
from musictag.jobs import plan_files
from musictag.jobs.plan_files import FILE_BYTES, PARTS_PER_WORKER, CopySource, Task, TaskList, count_parts, write_plan
from musictag.storage import commits, tables
from plans import ExistingRow, planned


def write(folder, n_tasks, n_parts, run="r1"):
    with planned([(f"t{n:03}", f"{n}.mp3", "e" if n % 2 else None) for n in range(n_tasks)]) as made:
        return write_plan(made.connection, str(folder / "rows-plan"), run, n_parts)


def read(files):
    return [list(files.read_shard(shard)) for shard in range(files.n_shards)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.data())
def test_every_task_is_in_one_part_in_order(tmp_path_factory, n_tasks, data):
    n_parts = data.draw(st.integers(1, n_tasks))
    shards = read(write(tmp_path_factory.mktemp("plan"), n_tasks, n_parts))
    tasks = [task for shard in shards for _, tasks in shard for task in tasks]
    assert [task.track_id for task in tasks] == [f"t{n:03}" for n in range(n_tasks)]
    sizes = [len(tasks) for shard in shards for _, tasks in shard]
    assert len(sizes) == n_parts
    assert max(sizes) - min(sizes) <= 1


def test_tasks_are_read_as_they_were_planned(tmp_path):
    files = write(tmp_path, 2, 1)
    ((part, tasks),) = files.read_shard(0)
    assert part == 0
    assert tasks == [Task("t000", "0.mp3", None), Task("t001", "1.mp3", "e")]


def test_tasks_are_read_with_the_row_to_copy(tmp_path):
    uri, schema = str(tmp_path / "rows"), pa.schema([("track_id", pa.string()), ("audio_sha256", pa.string())])
    tables.create_table(uri, schema)
    commits.append_rows(uri, schema, [{"track_id": "a", "audio_sha256": "da"}])
    (file,) = tables.files(uri)
    existing = {"a": ExistingRow("a.mp3", "5-1", "p")}
    with planned([("a", "a.mp3", "5-2")], existing, producer="p", file=file.path, copied_from=uri) as made:
        files = write_plan(made.connection, str(tmp_path / "rows-plan"), "r1", 1)
    ((_, (task,)),) = files.read_shard(0)
    assert task.copy_source == CopySource("a", "da", file.path)


def test_no_more_shards_than_the_engine_takes_and_all_have_nearly_equally_many_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(plan_files, "MAX_SHARDS", 4)
    files = write(tmp_path, 40, 10)
    assert (files.n_shards, files.n_parts) == (4, 10)
    assert sorted(len(shard) for shard in read(files)) == [2, 2, 3, 3]
    assert all([part for part, _ in shard] == list(range(len(shard))) for shard in read(files))


@settings(deadline=None)
@given(st.integers(1, 10**8), st.integers(1, 10**9), st.integers(1, 5_000))
def test_parts_are_small_and_there_are_enough_for_all_workers(n_tasks, task_bytes, n_workers):
    n_parts = count_parts(n_tasks, task_bytes, n_workers)
    assert 1 <= n_parts <= n_tasks
    largest = -(-n_tasks // n_parts)
    assert largest == 1 or (largest - 1) * task_bytes <= FILE_BYTES
    assert n_parts == n_tasks or n_parts >= PARTS_PER_WORKER * n_workers


def test_plan_of_another_run_is_an_error(tmp_path):
    files = write(tmp_path, 3, 1)
    other = tmp_path / "rows-plan/r2"
    other.mkdir()
    (tmp_path / "rows-plan/r1/shard-0000.parquet").rename(other / "shard-0000.parquet")
    with pytest.raises(StoreError, match=r"shard-0000\.parquet: is the plan of another run"):
        list(plan_files.PlanFiles(files.uri, "r2", 1, 1, 1).read_shard(0))


def test_missing_or_broken_plan_file_is_an_error_that_names_it(tmp_path):
    files = write(tmp_path, 3, 1)
    path = tmp_path / "rows-plan/r1/shard-0000.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(StoreError, match="rows-plan"):
        list(files.read_shard(0))
    path.unlink()
    with pytest.raises(StoreError, match=r"shard-0000\.parquet"):
        list(files.read_shard(0))


def test_deleted_plan_leaves_those_of_other_runs(tmp_path):
    files = write(tmp_path, 3, 1)
    kept = write(tmp_path, 3, 1, run="r2")
    plan_files.delete_plan(files.uri, "r1")
    plan_files.delete_plan(files.uri, "r1")
    assert [path.name for path in (tmp_path / "rows-plan").iterdir()] == ["r2"]
    assert len(read(kept)) == 1


def test_a_part_is_one_row_group(tmp_path):
    write(tmp_path, 10, 1)
    assert pq.ParquetFile(tmp_path / "rows-plan/r1/shard-0000.parquet").num_row_groups == 1


@settings(deadline=None)
@given(st.integers(1, 30), st.integers(1, 5))
def test_tasks_in_memory_are_divided_without_splitting_their_order(n_tasks, n_workers):
    tasks = [Task(str(n), f"{n}.mp3", None, features_file=f"f{n % 3}") for n in range(n_tasks)]
    shards = TaskList.of(tasks, n_workers)
    read = [task for shard in range(shards.n_shards) for _, tasks in shards.read_shard(shard) for task in tasks]
    assert read == sorted(tasks, key=lambda task: task.features_file)
    assert shards.n_shards <= PARTS_PER_WORKER * n_workers
