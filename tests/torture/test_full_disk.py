"""Fill up the disk while a job writes to it."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from torture.runs import Job, Reference, assert_nothing_lost


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB in memory; mounting it needs root."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)  # noqa: S607
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # noqa: S607


def resize(disk: Path, kib: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={kib}k", disk], check=True)  # noqa: S607


def fill_up_and_go_on(job: Job, reference: Reference, disk: Path, kib: int, folder: Path) -> None:
    resize(disk, kib)
    code, said = job.run(folder / "full.log")
    assert code == 1, said
    errors = [line for line in said.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, said
    assert "No space left on device" in errors[0]
    assert job.uri in errors[0]
    assert "Traceback" not in said, said
    print(f"\n{job.script.stem}: {errors[0]}; {job.n_rows()} of {len(reference.rows)} tracks were written")  # noqa: T201
    assert 0 < job.n_rows() < len(reference.rows)
    resize(disk, 1 << 20)
    job.run_checked(folder / "again.log")
    assert_nothing_lost(job, reference)


def test_featurize_on_a_full_disk(
    featurize_job: Callable[..., Job], featurized: Reference, disk: Path, tmp_path: Path
) -> None:
    sizes = sum(path.stat().st_size for path in Path(featurized.uri).glob("part-*"))
    fill_up_and_go_on(featurize_job(disk), featurized, disk, sizes * 6 // 10 // 1024, tmp_path)


def test_tag_on_a_full_disk(
    tag_job: Callable[..., Job], catalog: Path, tagged_from_audio: Reference, disk: Path, tmp_path: Path
) -> None:
    sizes = sum(path.stat().st_blocks * 512 for path in Path(tagged_from_audio.uri).rglob("*"))
    fill_up_and_go_on(tag_job(disk, "--catalog", catalog), tagged_from_audio, disk, sizes * 6 // 10 // 1024, tmp_path)
