"""Run a job twice at once over the same catalog: each track has one row after both runs."""

import contextlib
from collections.abc import Callable
from pathlib import Path

from torture.runs import LIMIT_S, Job, Reference, assert_nothing_lost


def run_both(jobs: list[Job], folder: Path) -> None:
    logs = [folder / f"{n}.log" for n in range(len(jobs))]
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(job.running(log)) for job, log in zip(jobs, logs, strict=True)]
        codes = [process.wait(LIMIT_S) for process in processes]
    said = [log.read_text() for log in logs]
    assert codes == [0] * len(jobs), said
    for text in said:
        print("\n" + text.splitlines()[-1])  # noqa: T201


def test_two_concurrent_featurize_runs(
    featurize_job: Callable[..., Job], catalog: Path, featurized: Reference, tmp_path: Path
) -> None:
    """One run has ten tracks less, so that the parts differ and both runs write most tracks."""
    lines = catalog.read_text().splitlines()
    fewer = catalog.with_name("fewer.csv")
    fewer.write_text("\n".join([lines[0], *lines[11:]]) + "\n")
    jobs = [featurize_job(tmp_path), featurize_job(tmp_path, of=fewer)]
    run_both(jobs, tmp_path)
    assert_nothing_lost(jobs[0], featurized)


def test_two_concurrent_tag_runs(
    tag_job: Callable[..., Job], features: Path, tagged_from_features: Reference, ray_cluster: str, tmp_path: Path
) -> None:
    job = tag_job(tmp_path, "--features", features, ray_address=ray_cluster)
    run_both([job, job], tmp_path)
    assert_nothing_lost(job, tagged_from_features)
