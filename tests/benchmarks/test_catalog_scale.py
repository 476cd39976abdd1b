"""Time and memory of a run apart from decoding and scoring, in catalogs of up to ten million tracks.

SCALE_ROWS=10000000 .venv/bin/python -m pytest tests/benchmarks/test_catalog_scale.py -s

SCALE_ROWS is the size of the plan, SCALE_TRACKS that of the featurized and tagged catalogs, SCALE_S3_TRACKS that of a
catalog whose tables are on an S3 server.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow.fs import FileSelector

from benchmarks.catalog_scale import write_catalog
from musictag.storage import folders, tables
from object_stores import STORES, put

N_ROWS = int(os.environ.get("SCALE_ROWS", "1000000"))
N_TRACKS = int(os.environ.get("SCALE_TRACKS", "1000000"))
N_S3_TRACKS = int(os.environ.get("SCALE_S3_TRACKS", "100000"))
N_NIGHTLY, N_NIGHTS = 2_000, 10
HERE = Path(__file__).parent
FEATURIZE = HERE.parents[1] / "pipelines" / "featurize.py"
ENOUGH = 50_000
"""Of fewer tracks, what a run costs once counts more than what each track costs: figures are printed, not checked."""
# The part of the time that commits may take, and how fast the last tenth of the tracks is relative to the first.
MAX_COMMIT_SHARE, MIN_LAST_SPEED, MAX_CHAMPION_RATIO = 0.05, 0.9, 1.15


def run(*arguments: object, cwd: Path | None = None) -> str:
    """Run Python with arguments; return its output."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def step(name: str, folder: Path, n_rows: int) -> dict[str, Any]:
    """Run a step of `catalog_scale`; print and return its figures."""
    figures: dict[str, Any] = json.loads(run(HERE / "catalog_scale.py", name, folder, n_rows).splitlines()[-1])
    echo(f"{n_rows:,} rows, {name}", figures)
    return figures


def echo(what: str, figures: dict[str, Any]) -> None:
    text = ", ".join(
        f"{key} {value:,.2f}" if isinstance(value, float) else f"{key} {value:,}" for key, value in figures.items()
    )
    print(f"\n{what}: {text}")  # noqa: T201


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("scale")


def test_plan_and_a_new_champion(folder: Path) -> None:
    step("make_features", folder, N_ROWS)
    figures = step("plan", folder, N_ROWS)
    is_large = N_ROWS > 2_000_000
    assert figures["peak GiB"] <= (4 if is_large else 1.5)
    assert figures["seconds"] <= (480 if is_large else 60)
    broken = step("broken", folder, N_ROWS)
    assert broken["n_failures"] == N_ROWS // 10
    assert broken["peak GiB"] <= (4 if is_large else 1.5)
    if N_ROWS != N_TRACKS:
        write_catalog(folder, N_TRACKS)
    champions = step("tag", folder, N_TRACKS)
    assert N_TRACKS < ENOUGH or champions["model 2 s"] <= MAX_CHAMPION_RATIO * champions["model 1 s"]


def made_featurize(folder: Path) -> Path:
    """Write a copy of featurize.py that makes cells of a few bytes, and prints how long its commits took."""
    text = FEATURIZE.read_text()
    for old, new in (
        ("import Outcome, featurize_tasks\n", "import Outcome\nfrom made_cells import featurize_tasks\n"),
        (
            '        with polling_bar("featurize"',
            '        COMMITTERS.append(committer)\n        with polling_bar("featurize"',
        ),
        ("\ndef main(", "\nCOMMITTERS = []\n\n\ndef main("),
        ('purpose="to do")\n', 'purpose="to do")\n    print("commits", COMMITTERS[0].commit_seconds)\n'),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    copy = folder / "featurize.py"
    copy.write_text(text)
    return copy


def featurize(folder: Path, uri: str, catalog: str, n_tracks: int) -> dict[str, float]:
    """Featurize a catalog with made cells; return the share of commits and the speed of the last tenth."""
    out = run(made_featurize(folder), "--catalog", catalog, "--features", uri, "--clips-per-track", 10, cwd=folder)
    commit_s = float(out.splitlines()[-1].split()[1])
    times = [time for time, n_rows in sorted(written(uri)) for _ in range(n_rows)]
    assert len(times) == n_tracks
    seconds, tenth = times[-1] - times[0], n_tracks // 10
    return {
        "tracks per s": n_tracks / seconds,
        "share of commits": commit_s / seconds,
        "speed of the last tenth": (times[tenth] - times[0]) / (times[-1] - times[-tenth]),
    }


def written(uri: str) -> Iterator[tuple[float, int]]:
    """Yield the time at which each file was written and its number of rows."""
    n_rows = {file.path: file.n_rows for file in tables.files(uri)}
    for file in folders.open_folder(uri).get_file_info(FileSelector("")):
        if file.base_name in n_rows:
            yield file.mtime_ns / 1e9, n_rows[file.base_name]


def test_featurizing_on_a_local_disk(folder: Path) -> None:
    catalog = write_catalog(folder, N_TRACKS)
    figures = featurize(folder, str(folder / "made"), str(catalog), N_TRACKS)
    echo(f"{N_TRACKS:,} tracks featurized on a local disk", figures)
    assert N_TRACKS < ENOUGH or figures["share of commits"] <= MAX_COMMIT_SHARE
    assert N_TRACKS < ENOUGH or figures["speed of the last tenth"] >= MIN_LAST_SPEED


def test_featurizing_on_s3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = write_catalog(folder, N_S3_TRACKS)
    with STORES["seaweedfs"](folder, monkeypatch) as root:
        put(f"{root}/catalog.parquet", catalog.read_bytes())
        figures = featurize(folder, f"{root}/made", f"{root}/catalog.parquet", N_S3_TRACKS)
    echo(f"{N_S3_TRACKS:,} tracks featurized on an S3 server", figures)
    assert N_S3_TRACKS < ENOUGH or figures["share of commits"] <= MAX_COMMIT_SHARE


def test_size_of_a_table_after_ten_nights_and_two_champions(folder: Path) -> None:
    """Each night a tenth more tracks arrive; two nights have a new champion; a vacuum keeps a day."""
    home = folder / "nights"
    home.mkdir()
    sizes = []
    for night in range(N_NIGHTS):
        write_catalog(home, N_NIGHTLY * (N_NIGHTS + night) // N_NIGHTS)
        run(HERE / "catalog_scale.py", "night", home, 1 + night // 4)
        sizes.append(sum(path.stat().st_size for path in (home / "tags").glob("part-*")))
    run("-m", "musictag", "compact", home / "tags")
    run("-m", "musictag", "vacuum", home / "tags", "--keep-hours", 0)
    left = [path.stat().st_size for path in (home / "tags").glob("part-*")]
    growth = [round(after / before, 2) for before, after in itertools.pairwise(sizes)]
    print(f"\nbytes after each night: {sizes}, growth {growth}; after compact and vacuum: {left}")  # noqa: T201
    assert len(left) == 1
    assert left[0] <= sizes[0] * 2.5
    assert not list((home / "tags" / "_staged").iterdir())
    assert not list((home / "tags-plan").iterdir())
