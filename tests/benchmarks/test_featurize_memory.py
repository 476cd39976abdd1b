"""Memory of featurizing does not grow with the catalog: the peaks of 300 and 3,000 tracks differ by at most 20 %."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import soundfile

SCRIPT = Path(__file__).parents[2] / "pipelines" / "featurize.py"
SECONDS, SAMPLE_RATE, N_FILES = 10, 44_100, 5
MIB = 1 << 20


def make_catalog(folder: Path, n_tracks: int) -> Path:
    """Write a catalog of links to a few songs."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for n in range(N_FILES):
        waveform = 0.2 * rng.standard_normal((SECONDS * SAMPLE_RATE, 2))
        soundfile.write(folder / f"song-{n}.flac", waveform, SAMPLE_RATE)
    lines = ["track_id,uri"]
    for n in range(n_tracks):
        (folder / f"link-{n}.flac").symlink_to(f"song-{n % N_FILES}.flac")
        lines.append(f"{n:05d},link-{n}.flac")
    (folder / "catalog.csv").write_text("\n".join(lines) + "\n")
    return folder / "catalog.csv"


def memory(processes: list[psutil.Process]) -> list[int]:
    """Return the resident bytes of each process that still runs."""
    sizes = []
    for process in processes:
        try:
            sizes.append(process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return sizes


def peaks(folder: Path, n_tracks: int) -> tuple[int, int, int, float]:
    """Run the job; return peak bytes of the driver, of the largest worker and of all processes, and the seconds."""
    catalog = make_catalog(folder, n_tracks)
    command = [sys.executable, str(SCRIPT), "--runner=DirectRunner", "--catalog", str(catalog)]
    started = time.monotonic()
    process = subprocess.Popen(
        [*command, "--features", str(folder / "features")],
        cwd=folder,
        env=dict(os.environ),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    driver = psutil.Process(process.pid)
    of_driver, of_worker, of_all = 0, 0, 0
    while process.poll() is None:
        own, workers = memory([driver]), memory(driver.children(recursive=True))
        of_driver = max([of_driver, *own])
        of_worker = max([of_worker, *workers])
        of_all = max(of_all, sum(own) + sum(workers))
        time.sleep(0.1)
    seconds = time.monotonic() - started
    out = process.communicate()[0]
    assert process.returncode == 0
    assert f"{n_tracks:,} listed = {n_tracks:,} written + 0 unchanged + 0 failed" in out
    return of_driver, of_worker, of_all, seconds


def test_memory_does_not_grow_with_the_catalog(tmp_path: Path) -> None:
    found = {n_tracks: peaks(tmp_path / str(n_tracks), n_tracks) for n_tracks in (300, 3_000)}
    for n_tracks, (of_driver, of_worker, of_all, seconds) in found.items():
        sys.stdout.write(
            f"\n{n_tracks:,} tracks of {SECONDS} s: peak {of_worker / MIB:.0f} MiB in the largest worker, "
            f"{of_driver / MIB:.0f} MiB in the driver, {of_all / MIB:.0f} MiB in all; {seconds:.0f} s"
        )
    few, many = found[300], found[3_000]
    assert many[1] <= 1.2 * few[1]
    assert many[2] <= 1.2 * few[2]
