"""Time and memory of reading a catalog and its labels, and of verifying a table against it.

CATALOG_ROWS is the number of rows, and FORMATS names some of csv, jsonl, parquet and broken, a CSV file of which a
tenth of the rows is broken. Each step runs in a process of its own. 5,000 rows have tags. The features table has as
many rows as the catalog, with cells of two bytes.
"""

import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from benchmarks import catalogs
from musictag.jobs import progress

N_ROWS = int(os.environ.get("CATALOG_ROWS", "1_000_000"))
FORMATS = os.environ.get("FORMATS", "csv,jsonl,parquet,broken").split(",")
N_TAGGED, BROKEN_SHARE = 5_000, 0.1
# Targets: processor seconds for a million rows, since others may use the machine, and GiB for any number.
MAX_CPU_SECONDS, MAX_GIB = 30, 4


def report(name: str, step: Callable[..., str], *arguments: object) -> None:
    """Run a step in a process of its own; print its time, its largest memory and its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        result, seconds, cpu_seconds, gib = pool.submit(catalogs.measured, step, *arguments).result()
    progress.echo(
        f"{name:<24} {seconds:6.1f} s  {cpu_seconds:6.1f} CPU s  {N_ROWS / seconds:9,.0f} rows/s  "
        f"{gib:5.2f} GiB  {result}"
    )
    assert gib <= MAX_GIB
    assert cpu_seconds <= MAX_CPU_SECONDS * N_ROWS / 1_000_000


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("catalogs")
    progress.echo(f"\n{N_ROWS:,} rows")
    return {kind: catalogs.write_catalog(folder, kind, N_ROWS, N_TAGGED, BROKEN_SHARE) for kind in FORMATS}


def test_catalog_is_read_in_bounded_time_and_memory(paths: dict[str, Path]) -> None:
    for kind, path in paths.items():
        report(f"{kind}, for a plan", catalogs.read, str(path), catalogs.PLAN_COLUMNS)
        report(f"{kind}, all columns", catalogs.read, str(path), None)


def test_labels_and_verification_hold_the_same_limits(paths: dict[str, Path], tmp_path: Path) -> None:
    catalog, features = paths[FORMATS[0]], str(tmp_path / "features")
    catalogs.write_features(features, catalog)
    report("labels", catalogs.read_labels, str(catalog), features)
    report("verify", catalogs.verify, str(catalog), features)
