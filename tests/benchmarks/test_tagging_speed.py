"""Speed of the published networks relative to a naive port, tracks per hour, and 10 clips compared with all.

The naive port computes what the paper and the package compute: all filters, and ReLU and batch norm before the maximum.
It needs the package's wheel, which pip fetches. EMOTIFY names the folder of the Emotify set.
"""

import csv
import itertools
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn
from torch.nn import functional

from musictag.features.clips import clip_starts
from musictag.features.config import FeatureConfig
from musictag.features.extract import track_clips
from musictag.jobs import progress
from musictag.jobs.machine import n_cores
from musictag.models.musicnn import FilterBlock, Musicnn
from musictag.models.published import conversion, pretrained
from musictag.tagging.tagger import Tagger

CONFIG = FeatureConfig()
EMOTIFY = Path(os.environ.get("EMOTIFY", "../shared/data/emotify"))
N_CLIPS, ROUNDS = 80, 3
BATCH_SIZES = (1, 8, 64)
SONG_S, SAMPLE_RATE, N_SONGS = 240, 44_100, 12
MAX_RELATIVE_TIME = 0.5
MAX_DIFFERENCE = 0.005


def naive_block(block: FilterBlock) -> Callable[[torch.Tensor], torch.Tensor]:
    """Compute a filter block layer by layer, as the package does."""
    frames = block.conv.kernel_size[0]
    before = (frames - 1) // 2

    def forward(x: torch.Tensor) -> torch.Tensor:
        x = block.conv(functional.pad(x, (0, 0, before, frames - 1 - before)))
        return block.norm(functional.relu(x)).amax(dim=3)

    return forward


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return conversion.fetch_wheel(tmp_path_factory.mktemp("wheel"))


def naive_port(wheel: Path, name: str) -> nn.Module:
    with zipfile.ZipFile(wheel) as files:
        model, _ = conversion.read_model(files, pretrained.PUBLISHED[name])
    assert isinstance(model, Musicnn)
    for block in model.filter_blocks():
        block.forward = naive_block(block)
    return model.eval()


def seconds(model: nn.Module, clips: torch.Tensor, batch_size: int) -> float:
    with torch.inference_mode():
        started = time.perf_counter()
        for batch in clips.split(batch_size):
            model(batch)
        return time.perf_counter() - started


@pytest.mark.parametrize("name", ["msd-musicnn", "mtt-musicnn"])
def test_scoring_takes_half_the_time_of_a_naive_port(name: str, wheel: Path) -> None:
    naive, ours = naive_port(wheel, name), Tagger.load(pretrained.find(name)).model
    clips = (
        torch.from_numpy(np.random.default_rng(0).random((N_CLIPS, CONFIG.clip_frames, CONFIG.n_mels), np.float32)) * 4
    )
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        times: dict[str, dict[int, float]] = {"naive": {}, "ours": {}}
        for _ in range(ROUNDS):  # interleaved, so that a slow moment of the machine affects both
            for size in BATCH_SIZES:
                for who, model in (("naive", naive), ("ours", ours)):
                    taken = seconds(model, clips, size)
                    times[who][size] = min(taken, times[who].get(size, taken))
    finally:
        torch.set_num_threads(n_threads)
    best = {who: min(by_size.values()) for who, by_size in times.items()}
    progress.echo(
        f"\n{name}, {N_CLIPS} clips on one core, s by batch size: {times}; ratio {best['ours'] / best['naive']:.2f}"
    )
    assert best["ours"] <= MAX_RELATIVE_TIME * best["naive"]


@pytest.mark.parametrize("name", ["msd-musicnn", "mtt-musicnn"])
def test_scores_equal_those_of_the_naive_port(name: str, wheel: Path) -> None:
    audio = sorted((EMOTIFY / "audio").glob("*.ogg"))[::3][:100]
    assert audio, f"{EMOTIFY} holds no Emotify: name its folder with EMOTIFY=FOLDER"
    naive, ours = naive_port(wheel, name), Tagger.load(pretrained.find(name)).model
    differences, same_top_5 = [], 0
    for path in audio:
        clips = torch.from_numpy(track_clips(path, path.name, CONFIG)[0])
        with torch.inference_mode():
            theirs, scores = (torch.sigmoid(model(clips)).mean(dim=0) for model in (naive, ours))
        differences.append(float((theirs - scores).abs().max()))
        same_top_5 += theirs.topk(5).indices.tolist() == scores.topk(5).indices.tolist()
    progress.echo(
        f"\n{name}: largest difference of {len(audio)} tracks {max(differences):.1e}, top 5 equal on {same_top_5}"
    )
    assert max(differences) <= MAX_DIFFERENCE
    assert same_top_5 == len(audio)


def test_ten_clips_approximate_all_clips() -> None:
    """Join eight excerpts of 30 s by one artist to a song of four minutes, which varies more than a real one."""
    with (EMOTIFY / "ratings.csv").open(encoding="utf-8", newline="") as lines:
        rows = sorted(csv.DictReader(lines), key=lambda row: row["artist"])
    tagger = Tagger.load(pretrained.find(pretrained.DEFAULT))
    differences, agreements = [], []
    for _, of_artist in itertools.groupby(rows, key=lambda row: row["artist"]):
        scores = [
            tagger.raw_clip_scores(track_clips(EMOTIFY / row["file"], row["file"], CONFIG)[0]) for row in of_artist
        ]
        for song in (np.concatenate(scores[n : n + 8]) for n in range(0, len(scores) - 7, 8)):
            starts = clip_starts(len(song) * CONFIG.clip_frames, CONFIG, 10)
            some = song[[round(start / CONFIG.clip_frames) for start in starts]].mean(axis=0)
            differences.append(float(np.abs(some - song.mean(axis=0)).mean()))
            agreements.append(len({*some.argsort()[-5:]} & {*song.mean(axis=0).argsort()[-5:]}) / 5)
    progress.echo(
        f"\n10 clips beside all of {len(differences)} songs of 4 minutes: mean absolute difference "
        f"{np.mean(differences):.4f}, {np.mean(agreements):.0%} of the top 5 agree"
    )
    assert np.mean(differences) < MAX_DIFFERENCE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four-minute songs in MP3."""
    folder = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    for n in range(N_SONGS):
        with soundfile.SoundFile(
            folder / f"{n}.mp3", "w", SAMPLE_RATE, 2, bitrate_mode="CONSTANT", compression_level=0.2
        ) as stream:
            for _ in range(SONG_S):
                stream.write((0.1 * rng.standard_normal((SAMPLE_RATE, 2))).astype(np.float32))
    return folder


def test_tracks_per_hour_of_a_folder(folder: Path) -> None:
    def seconds(*arguments: object) -> float:
        started = time.perf_counter()
        command = [sys.executable, "-m", "musictag", "tag", "--json", *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - started

    one = folder / "0.mp3"
    for clips_per_track in ("10", "all"):
        for_one = seconds(one, "--clips-per-track", clips_per_track)
        for_all = seconds(folder, "--clips-per-track", clips_per_track)
        per_song = (for_all - for_one) / (N_SONGS - 1)
        progress.echo(
            f"\n--clips-per-track {clips_per_track}: one song {for_one:.1f} s with start-up, then {per_song:.2f} s a "
            f"song: {3600 / per_song:,.0f} tracks per hour on {n_cores()} cores"
        )
