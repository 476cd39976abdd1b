"""Size of a second of audio in Parquet by dtype and compression, and the change of scores by each dtype.

It needs real music: EMOTIFY names the folder of the Emotify set.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from musictag.audio import reader
from musictag.features import clips, extract, log_mel
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, open_features
from musictag.jobs import progress
from musictag.models.published import pretrained
from musictag.storage import commits
from musictag.tagging.tagger import Tagger

EMOTIFY = Path(os.environ.get("EMOTIFY", "../shared/data/emotify"))
CONFIG = FeatureConfig()
N_SONGS, MINUTES = 30, 4
# Upper bound of log-mel values, log10(1 + 10000 power).
LARGEST = 7.0
MAX_RELATIVE_SIZE, MAX_CHANGE = 0.5, 0.005
ROUNDS = 3

Clips = npt.NDArray[np.float32]


def eight_bits(cut: Clips) -> npt.NDArray[np.uint8]:
    return np.round(np.clip(cut, 0, LARGEST) * (255 / LARGEST)).astype(np.uint8)


def split_bytes(cut: Clips) -> npt.NDArray[np.uint8]:
    """float16 with all high bytes before all low bytes."""
    return np.ascontiguousarray(cut.astype(np.float16).reshape(-1).view(np.uint8).reshape(-1, 2).T)


CELLS: dict[str, Callable[[Clips], npt.NDArray]] = {
    "float32": lambda cut: cut,
    "float16": lambda cut: cut.astype(np.float16),
    "float16, bytes apart": split_bytes,
    "8 bits": eight_bits,
}
CODECS = (("none", None), ("lz4", None), ("zstd", 1), ("zstd", 9))


@pytest.fixture(scope="module")
def files() -> list[Path]:
    found = sorted((EMOTIFY / "audio").glob("*.ogg"))
    assert found, f"{EMOTIFY} holds no Emotify: name its folder with EMOTIFY=FOLDER"
    return found[:: len(found) // N_SONGS][:N_SONGS]


@pytest.fixture(scope="module")
def songs(files: list[Path]) -> list[Clips]:
    """All clips of each song before rounding."""
    songs = []
    for path in files:
        with reader.open_audio(path, path.name) as opened:
            waveform = np.concatenate(list(reader.waveform_blocks(opened, CONFIG.sample_rate)))
        spectrogram = log_mel.log_mel(waveform, CONFIG)
        songs.append(clips.cut_clips(spectrogram, clips.clip_starts(len(spectrogram), CONFIG, None), CONFIG))
    return songs


def seconds_of(cut: Clips) -> float:
    return cut.shape[0] * cut.shape[1] * CONFIG.hop_length / CONFIG.sample_rate


def stored(path: Path, cells: list[bytes], codec: str, level: int | None) -> tuple[int, float, float]:
    """Write and read a file; return its bytes and the minimum CPU time of writing and of reading."""
    tables = [pa.table({"clips": pa.array([cell], pa.binary())}) for cell in cells]
    writing, reading = [], []
    for _ in range(ROUNDS):
        started = time.process_time()
        with pq.ParquetWriter(
            path, tables[0].schema, compression=codec, compression_level=level, use_dictionary=False,
            write_statistics=False,
        ) as writer:  # fmt: skip
            for table in tables:
                writer.write_table(table)
        writing.append(time.process_time() - started)
        started = time.process_time()
        pq.read_table(path, use_threads=False)
        reading.append(time.process_time() - started)
    return path.stat().st_size, min(writing), min(reading)


def test_bytes_per_second_by_dtype_and_compression(songs: list[Clips], files: list[Path], tmp_path: Path) -> None:
    seconds = sum(map(seconds_of, songs))
    for kind, cell in CELLS.items():
        cells = [cell(cut).tobytes() for cut in songs]
        for codec, level in CODECS:
            size, writing, reading = stored(tmp_path / "cells.parquet", cells, codec, level)
            of_track = 1000 * 60 * MINUTES / seconds
            progress.echo(
                f"{kind}, {codec}{'' if level is None else f' {level}'}: {size / seconds:,.0f} bytes/s; "
                f"{MINUTES} min in {writing * of_track:.1f} ms, out in {reading * of_track:.1f} ms"
            )
    open_features(str(tmp_path / "features"), CONFIG, None)
    rows = (extract.featurize(path.name, str(path), CONFIG) for path in files)
    commits.append_rows(str(tmp_path / "features"), SCHEMA, rows)
    size = sum(path.stat().st_size for path in (tmp_path / "features").glob("part-*.parquet"))
    of_float32 = size / sum(cut.nbytes for cut in songs)
    progress.echo(f"the features table: {size / seconds:,.0f} bytes/s, {of_float32:.2f} of float32")
    assert of_float32 <= MAX_RELATIVE_SIZE


def test_dtype_of_cells_changes_no_score(songs: list[Clips]) -> None:
    rounded: dict[str, Callable[[Clips], Clips]] = {
        "float16": lambda cut: cut.astype(np.float16).astype(np.float32),
        "8 bits": lambda cut: eight_bits(cut).astype(np.float32) * np.float32(LARGEST / 255),
    }
    changes = dict.fromkeys(rounded, 0.0)
    for name in pretrained.PUBLISHED:
        tagger = Tagger.load(pretrained.find(name))
        for cut in songs:
            scores = tagger.raw_clip_scores(cut)
            for kind, as_kept in rounded.items():
                changes[kind] = max(changes[kind], float(np.abs(tagger.raw_clip_scores(as_kept(cut)) - scores).max()))
    progress.echo(
        f"clips' scores by {len(pretrained.PUBLISHED)} published networks change by at most "
        + ", ".join(f"{change:.4f} in {kind}" for kind, change in changes.items())
    )
    assert changes["float16"] <= MAX_CHANGE
    assert changes["8 bits"] > MAX_CHANGE, "8 bits would do: half of the storage"
