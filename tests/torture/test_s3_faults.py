"""Audio and tables on a store that answers 500 and 503, or not at all, on a share of all requests."""

import time
from pathlib import Path

import pytest

from musictag.catalog.reader import read_catalog
from musictag.jobs import maintenance
from object_stores import free_port
from torture.runs import SCRIPTS, Job, Reference, assert_same_rows, content
from torture.s3 import LISTING, proxied


@pytest.mark.parametrize(("failing", "stalling"), [(0.1, 0.0), (0.0, 0.02)], ids=["500 and 503", "stalls"])
def test_featurize_with_a_faulty_store(
    server: int, featurized: Reference, tmp_path: Path, failing: float, stalling: float
) -> None:
    uri = "s3://music/features"
    with proxied(free_port(), server, failing, stalling) as environment:
        job = Job(SCRIPTS / "featurize.py", ("--catalog", LISTING, "--features", uri), uri, environment)
        started = time.monotonic()
        end = job.run_checked(tmp_path / "log").splitlines()[-1]
        print(f"\n{failing:.0%} fail, {stalling:.0%} stall: {time.monotonic() - started:.0f} s: {end}")  # noqa: T201
    assert maintenance.verify(uri, LISTING).problems == ()
    place = {"uri", "audio_etag"}
    found, expected = (
        {track_id: {name: value for name, value in row.items() if name not in place} for track_id, row in rows.items()}
        for rows in (content(uri), featurized.rows)
    )
    listed = set(read_catalog(LISTING).tracks["track_id"].to_pylist())
    assert_same_rows(found, {track_id: row for track_id, row in expected.items() if track_id in listed})
