"""Process the parts of a shard in a worker, and stage what they give."""

import functools
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from musictag.jobs.featurizing import Outcome
from musictag.jobs.output import Output
from musictag.jobs.plan_files import PlanFiles, Task
from musictag.storage import data_files, staging
from musictag.storage.outages import ask_table_store


def stage_shard(
    output: Output, plan: PlanFiles, shard: int, process: Callable[[list[Task]], Iterable[Outcome]]
) -> Iterator[int]:
    """Process the parts of a shard that no worker has staged yet; yield the number of tracks of each.

    Args:
        output: the output of the run.
        plan: the run's tasks.
        shard: number of the shard.
        process: returns a row or a failure for each task.
    """
    for part, tasks in plan.read_shard(shard):
        stage = functools.partial(_stage_part, output, plan.run, shard, part, tasks, process)
        if ask_table_store(stage, plan.store_timeout_s):
            yield len(tasks)


def _stage_part(
    output: Output,
    run: str,
    shard: int,
    part: int,
    tasks: list[Task],
    process: Callable[[list[Task]], Iterable[Outcome]],
) -> bool:
    """Process and stage a part; return False if it is staged already, for example by a worker that was lost since."""
    if part in staging.staged_parts(output.uri, run, shard):
        return False
    started = time.perf_counter()
    failures: list[dict[str, Any]] = []
    files = data_files.write_rows(output.uri, output.schema, _rows(process(tasks), failures))
    manifest = staging.Manifest(
        run=run,
        shard=shard,
        part=part,
        producer=output.producer,
        files=tuple(files),
        failures=tuple(failures),
        core_seconds=time.perf_counter() - started,
    )
    staging.write_manifest(output.uri, manifest)
    return True


def _rows(outcomes: Iterable[Outcome], failures: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the rows of outcomes, and append their failures to `failures`."""
    for row, failure in outcomes:
        if row:
            yield row
        if failure:
            failures.append(failure)
