"""Helpers of the tagging benchmarks: large features tables, and the speed of the network alone."""

import datetime
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from musictag.features.config import FeatureConfig
from musictag.features.table import CELL_DTYPE, SCHEMA, encode_clips, open_features
from musictag.jobs.machine import n_cores
from musictag.models.published import pretrained
from musictag.storage import commits
from musictag.tagging.scorers import BATCH_SIZE, BATCHES_PER_GROUP
from musictag.tagging.tagger import Tagger

CONFIG = FeatureConfig()
PART_TRACKS = 24
N_CELLS = 64
NETWORK_SECONDS = 5


def add_tracks(uri: str, numbers: range, n_clips: int) -> None:
    """Add tracks with these numbers and `n_clips` clips each to the features table at `uri`."""
    open_features(uri, CONFIG, n_clips)
    rng = np.random.default_rng(0)
    shape = (n_clips, CONFIG.clip_frames, CONFIG.n_mels)
    cells = [encode_clips(4 * rng.random(shape, np.float32)) for _ in range(N_CELLS)]
    clip_s = CONFIG.clip_frames * CONFIG.hop_length / CONFIG.sample_rate

    def rows(part: range) -> Iterator[dict[str, Any]]:
        for number in part:
            yield {
                "track_id": f"track-{number:07d}",
                "uri": f"s3://music/track-{number:07d}.mp3",
                "audio_etag": f"{number:032x}",
                "audio_sha256": f"{number:064x}",
                "duration_s": n_clips * clip_s,
                "n_clips": n_clips,
                "start_s": [n * clip_s for n in range(n_clips)],
                "clips": cells[number % N_CELLS],
                "feature_hash": CONFIG.feature_hash,
                "featurized_at": datetime.datetime.now(datetime.UTC),
            }

    for first in range(0, len(numbers), PART_TRACKS):
        part = numbers[first : first + PART_TRACKS]
        commits.append_rows(uri, SCHEMA, rows(part))


def network_clips_per_s(model: str) -> float:
    """Clips per second of a published network alone, on one core, in batches as tagging has them."""
    torch.set_num_threads(1)
    tagger = Tagger.load(pretrained.find(model))
    shape = (BATCH_SIZE * BATCHES_PER_GROUP, CONFIG.clip_frames, CONFIG.n_mels)
    clips = (4 * np.random.default_rng(0).random(shape, np.float32)).astype(CELL_DTYPE)
    tagger.raw_clip_scores(clips)
    n_clips, started = 0, time.perf_counter()
    while (taken := time.perf_counter() - started) < NETWORK_SECONDS:
        tagger.raw_clip_scores(clips)
        n_clips += len(clips)
    return n_clips / taken


def networks_clips_per_s(model: str) -> float:
    """Clips per second of one network per core, run in parallel in separate processes."""
    n_jobs = n_cores()
    with ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(network_clips_per_s, [model] * n_jobs))
