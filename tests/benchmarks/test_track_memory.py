"""Memory of one track of unusual length, rate or number of channels: decoder process and worker together."""

import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from musictag.errors import AudioCorruptError, AudioError, AudioTooLongError, AudioTruncatedError
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.decoder_process import DecoderProcess
from musictag.features.limits import Limits
from musictag.features.table import SCHEMA, open_features
from musictag.storage import commits

CONFIG = FeatureConfig()
MIB = 1 << 20
MAX_MIB = 300
"""Allowed above the peak of a four-minute track."""


def resident() -> int:
    """Return the resident bytes of this process and its children."""
    total = 0
    for process in (psutil.Process(), *psutil.Process().children(recursive=True)):
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def peak(do: Callable[[], object]) -> int:
    """Return the peak of the resident bytes while `do` runs."""
    most, done = resident(), threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, resident())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        do()
    finally:
        done.set()
        watcher.join()
    return most


def noise(path: Path, seconds: float, sample_rate: int = 44_100, channels: int = 2) -> Path:
    """Write a file of white noise, second by second."""
    second = (0.1 * np.random.default_rng(0).standard_normal((sample_rate, channels))).astype(np.float32)
    with soundfile.SoundFile(path, "w", sample_rate, channels, "PCM_16") as file:
        for _ in range(int(seconds)):
            file.write(second)
    return path


def silence(path: Path, seconds: int, sample_rate: int, channels: int = 2) -> Path:
    """Write a sparse file of silence; RF64, which may exceed 4 GB."""
    n_bytes = 2 * channels * seconds * sample_rate
    header = struct.pack("<4sI4s4sIQQQI", b"RF64", 2**32 - 1, b"WAVE", b"ds64", 28, n_bytes + 72, n_bytes, 0, 0)
    header += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, sample_rate, 2 * channels * sample_rate, 4, 16)
    path.write_bytes(header + struct.pack("<4sI", b"data", 2**32 - 1))
    with path.open("r+b") as file:
        file.truncate(len(header) + 8 + n_bytes)
    return path


def declaring(path: Path, place: int, number: int) -> Path:
    """Write a WAV file of one second, and overwrite a number in its header."""
    noise(path, 1)
    content = bytearray(path.read_bytes())
    content[place : place + 4] = number.to_bytes(4, "little")
    path.write_bytes(content)
    return path


CASES: dict[str, tuple[Callable[[Path], Path], int | None, float, type[AudioError] | None]] = {
    "10 h at 96 kHz": (
        lambda at: silence(at / "a.wav", 36_000, 96_000),
        None,
        Limits().max_hours,
        AudioTooLongError,
    ),
    "10 h at 96 kHz, ten clips": (lambda at: silence(at / "a.wav", 36_000, 96_000), 10, 11, None),
    "1 h at 96 kHz": (lambda at: silence(at / "a.wav", 3_600, 96_000), None, Limits().max_hours, None),
    "2 h": (lambda at: noise(at / "a.wav", 7_200, 22_050, 1), None, Limits().max_hours, None),
    "1,000 channels": (lambda at: noise(at / "a.wav", 60, 44_100, 1_000), None, Limits().max_hours, None),
    "a rate of 2**31 - 1": (lambda at: declaring(at / "a.wav", 24, 2**31 - 1), None, 2, AudioCorruptError),
    "4 GB declared": (lambda at: declaring(at / "a.wav", 40, 2**32 - 100), None, 2, AudioTruncatedError),
}


@pytest.fixture(scope="module")
def decoder() -> Iterator[DecoderProcess]:
    with DecoderProcess() as process:
        yield process


@pytest.mark.parametrize("case", CASES)
def test_memory_of_unusual_tracks(tmp_path: Path, decoder: DecoderProcess, case: str) -> None:
    make, clips_per_track, max_hours, refusal = CASES[case]

    def write(path: Path, name: str) -> None:
        uri = str(tmp_path / name)
        open_features(uri, CONFIG, clips_per_track)
        limits = Limits(max_hours)
        rows = (
            extract.featurize("a", str(path), CONFIG, clips_per_track, limits, decoder.track_clips) for _ in range(1)
        )
        assert commits.append_rows(uri, SCHEMA, rows) == 1

    def do() -> None:
        if refusal is None:
            write(path, "features")
        else:
            with pytest.raises(refusal):
                write(path, "features")

    usual = noise(tmp_path / "usual.flac", 240)
    write(usual, "warm")
    baseline = peak(lambda: write(usual, "usual"))
    path = make(tmp_path)
    started = time.perf_counter()
    above = (peak(do) - baseline) / MIB
    sys.stdout.write(
        f"\n{case}: {refusal.__name__ if refusal else 'a row'} in {time.perf_counter() - started:.1f} s, "
        f"{above:.0f} MiB above the {baseline / MIB:.0f} of four minutes"
    )
    assert above <= MAX_MIB
