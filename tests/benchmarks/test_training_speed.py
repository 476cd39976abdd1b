"""Compare the speed of training on Ray Train with that of the bare loop, in clips per second after the first epoch.

The bare loop is `training.loop.fit` in this process, on rows read from the features table, with the same number of
threads as the one worker. Both train on the same batches. Two workers share each batch; their speed-up is that over one
worker on one core. Measurements alternate.
"""

import csv
import dataclasses
import datetime
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mlflow import MlflowClient

from musictag.catalog.vocabulary import targets_by_track
from musictag.evaluation import metrics
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, encode_clips, open_features
from musictag.jobs import progress
from musictag.jobs.machine import n_cores
from musictag.models.architectures import build_model
from musictag.storage import commits, tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches
from musictag.training.loop import fit
from musictag.training.recipes import FROM_SCRATCH

TRAIN = Path(__file__).parents[2] / "pipelines" / "train.py"
CONFIG = FeatureConfig()
N_TRACKS, N_CLIPS, TRACKS_OF_A_PART = int(os.environ.get("TRAINING_TRACKS", "800")), 10, 50
EVERY_VALIDATION = 10  # every tenth track is a validation track
TRAINING = dataclasses.replace(FROM_SCRATCH, epochs=2)
VOCABULARY = tuple(f"tag {k:02d}" for k in range(20))
ROUNDS = 2
MIN_SHARE_OF_BARE = 0.9


def row(track_id: str, rng: np.random.Generator) -> dict[str, object]:
    """Return a row of the features table with noise as clips."""
    clips = rng.random((N_CLIPS, CONFIG.clip_frames, CONFIG.n_mels), np.float32) * 4
    return {
        "track_id": track_id,
        "uri": f"{track_id}.wav",
        "audio_etag": "",
        "audio_sha256": "",
        "duration_s": N_CLIPS * CONFIG.clip_seconds,
        "n_clips": N_CLIPS,
        "start_s": [n * CONFIG.clip_seconds for n in range(N_CLIPS)],
        "clips": encode_clips(clips),
        "feature_hash": CONFIG.feature_hash,
        "featurized_at": datetime.datetime.now(datetime.UTC),
    }


@pytest.fixture(scope="module")
def labels() -> dict[str, dict[str, list[str]]]:
    """Return the tags of each track, by split."""
    rng = np.random.default_rng(0)
    labels: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}}
    for n in range(N_TRACKS):
        split = "train" if n % EVERY_VALIDATION else "validation"
        labels[split][f"track-{n:03d}"] = [tag for tag in VOCABULARY if rng.random() < 0.3] or [VOCABULARY[0]]
    return labels


@pytest.fixture(scope="module")
def folder(labels: dict[str, dict[str, list[str]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a catalog and its features."""
    folder = tmp_path_factory.mktemp("training")
    with (folder / "catalog.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["track_id", "uri", "tags", "split"])
        for split, tracks in labels.items():
            writer.writerows([track, f"{track}.wav", ";".join(tags), split] for track, tags in tracks.items())
    uri = str(folder / "features")
    open_features(uri, CONFIG, N_CLIPS)
    rng = np.random.default_rng(1)
    track_ids = [f"track-{n:03d}" for n in range(N_TRACKS)]
    for begin in range(0, N_TRACKS, TRACKS_OF_A_PART):
        rows = (row(track_id, rng) for track_id in track_ids[begin : begin + TRACKS_OF_A_PART])
        commits.append_rows(uri, SCHEMA, rows)
    return folder


def bare_loop(folder: Path, labels: dict[str, dict[str, list[str]]]) -> list[float]:
    """Return the clips per second of each epoch."""
    targets = {split: targets_by_track(tags, VOCABULARY) for split, tags in labels.items()}

    def rows(split: str) -> Iterator[batches.Row]:
        held = tables.read_rows(str(folder / "features"), SCORE_COLUMNS, targets[split])
        return batches.labelled_rows(held, targets[split])

    def validate(model: torch.nn.Module) -> dict[str, float]:
        return metrics.validation_metrics(*score_labelled(model, rows("validation"), CONFIG)[1:])

    torch.manual_seed(TRAINING.seed)
    n_threads = torch.get_num_threads()
    torch.set_num_threads(n_cores())  # as the one worker of train.py does
    try:
        state = fit(
            build_model("cnn", {}, n_mels=CONFIG.n_mels, n_tags=len(VOCABULARY)),
            TRAINING,
            train_batches=lambda epoch: batches.train_batches(rows("train"), CONFIG, TRAINING, epoch=epoch),
            steps_per_epoch=batches.count_batches(len(targets["train"]), TRAINING),
            validate=validate,
            on_epoch=lambda state: None,
        )
    finally:
        torch.set_num_threads(n_threads)
    return [epoch["clips_per_s"] for epoch in state.history]


def on_ray(folder: Path, n_workers: int, cores: str | None = None) -> list[float]:
    """Return the clips per second of each epoch, of all workers together, which may use some cores only."""
    tracking_uri = f"sqlite:///{folder}/mlflow.db"
    options: tuple[object, ...] = (
        "--catalog", "catalog.csv", "--features", "features", "--checkpoints", "checkpoints", "--model", "cnn",
        "--epochs", TRAINING.epochs, "--num-workers", n_workers,
    )  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    affinity = ["taskset", "--cpu-list", cores] if cores else []
    done = subprocess.run(
        [*affinity, sys.executable, str(TRAIN), *map(str, options)],
        cwd=folder, check=False, capture_output=True, text=True,
        env={**environment, "MLFLOW_TRACKING_URI": tracking_uri},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    client = MlflowClient(tracking_uri)
    experiment = client.get_experiment_by_name("musictag")
    newest = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"])[0]
    points = client.get_metric_history(newest.info.run_id, "clips_per_s")
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def test_ray_trains_nearly_as_fast_as_the_bare_loop(folder: Path, labels: dict[str, dict[str, list[str]]]) -> None:
    variants: dict[str, Callable[[], list[float]]] = {
        "bare loop": lambda: bare_loop(folder, labels),
        "1 worker": lambda: on_ray(folder, 1),
        "1 worker on one core": lambda: on_ray(folder, 1, cores="0"),
        "2 workers": lambda: on_ray(folder, 2),
    }
    taken: dict[str, list[float]] = {variant: [] for variant in variants}
    for number in range(ROUNDS):  # in alternating order, so that a slow machine affects all
        for variant in sorted(variants, reverse=bool(number % 2)):
            _, *rates = variants[variant]()  # the first epoch includes the start
            assert len(rates) == TRAINING.epochs - 1
            taken[variant] += rates
    rate = {variant: float(np.median(rates)) for variant, rates in taken.items()}
    progress.echo(
        f"\n{N_TRACKS} tracks of {N_CLIPS} clips on {n_cores()} cores, clips/s after the first epoch: "
        + ", ".join(
            f"{variant} {rate[variant]:.0f} ({rate[variant] / rate['bare loop']:.2f} of the bare loop)"
            for variant in rate
        )
        + f"; two workers are {rate['2 workers'] / rate['1 worker on one core']:.2f} times as fast as one on one core"
    )
    assert rate["1 worker"] >= MIN_SHARE_OF_BARE * rate["bare loop"]
