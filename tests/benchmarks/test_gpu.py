"""What one GPU does, without the network: the training step alone, the loop with its data path, and train.py.

Each figure is printed; targets are asserted. Without a GPU the tests are skipped. The functions take any device, so
that they can be tried on a CPU.
"""

import csv
import dataclasses
import functools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.tagging import CONFIG, add_tracks
from musictag.features.reader import find_files
from musictag.jobs import progress
from musictag.models.architectures import build_model
from musictag.storage import tables
from musictag.training.config import TrainingConfig
from musictag.training.dataset import Dataset, make_dataset
from musictag.training.loader import TrainBatches, loading
from musictag.training.loop import fit
from musictag.training.recipes import DEFAULT_MODEL, FROM_SCRATCH

TRAIN = Path(__file__).parents[2] / "pipelines" / "train.py"
GPU = torch.device("cuda")
N_TRACKS, N_CLIPS = int(os.environ.get("GPU_TRACKS", "3000")), 10
EVERY_VALIDATION = 30  # every thirtieth track is a validation track
TAGS = tuple(f"tag {k:02d}" for k in range(50))
BATCH_SIZES = (64, 256)
EPOCHS, WARM_UP_EPOCHS = 5, 2
STEPS_ALONE = 60
MIN_SHARE_OF_STEP = 0.9

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture(scope="module")
def labels() -> dict[str, dict[str, list[str]]]:
    rng = np.random.default_rng(0)
    labels: dict[str, dict[str, list[str]]] = {"train": {}, "validation": {}}
    for number in range(N_TRACKS):
        split = "train" if number % EVERY_VALIDATION else "validation"
        labels[split][f"track-{number:07d}"] = [tag for tag in TAGS if rng.random() < 0.1] or [TAGS[0]]
    return labels


@pytest.fixture(scope="module")
def folder(labels: dict[str, dict[str, list[str]]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a catalog and its features."""
    folder = tmp_path_factory.mktemp("gpu")
    add_tracks(str(folder / "features"), range(N_TRACKS), N_CLIPS)
    with (folder / "catalog.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["track_id", "uri", "tags", "split"])
        for split, tracks in labels.items():
            writer.writerows([track, f"{track}.wav", ";".join(tags), split] for track, tags in tracks.items())
    return folder


def make_training(batch_size: int) -> TrainingConfig:
    return dataclasses.replace(FROM_SCRATCH, batch_size=batch_size, epochs=EPOCHS)


def dataset_of(folder: Path, labels: dict[str, dict[str, list[str]]]) -> Dataset:
    uri = str(folder / "features")
    files = find_files(uri, [track for tracks in labels.values() for track in tracks], tables.version(uri))
    return make_dataset([labels], TAGS, features_uri=uri, files=files, feature_config=CONFIG)


def clips_per_s(batches: TrainBatches, n_steps: int, training: TrainingConfig, device: torch.device) -> float:
    """Return the clips per second of the default network after its first epochs, validation left out."""
    torch.manual_seed(0)
    model = build_model(DEFAULT_MODEL, {}, n_mels=CONFIG.n_mels, n_tags=len(TAGS)).to(device)
    state = fit(model, training, train_batches=batches, steps_per_epoch=n_steps,
                validate=lambda _model: {"val_loss": 1.0}, on_epoch=lambda _state: None)  # fmt: skip
    return float(np.median([epoch["clips_per_s"] for epoch in state.history[WARM_UP_EPOCHS:]]))


def step_alone(batch_size: int, device: torch.device, n_steps: int = STEPS_ALONE) -> float:
    """Return the clips per second if each step gets the same clips, which are on the device."""
    clips = torch.rand(batch_size, CONFIG.clip_frames, CONFIG.n_mels, device=device)
    targets = torch.randint(2, (batch_size, len(TAGS)), device=device).float()

    def same_batch(_epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return ((clips, targets) for _ in range(n_steps))

    return clips_per_s(same_batch, n_steps, make_training(batch_size), device)


def loop(dataset: Dataset, batch_size: int, device: torch.device) -> float:
    """Return the clips per second with batches from the table, drawn ahead by another process."""
    training = make_training(batch_size)
    n_steps = dataset.count_train_batches(0, training)
    draw = functools.partial(dataset.draw_batches, fold=0, training=training)
    with loading(draw, range(training.epochs), n_steps, device, ahead=True) as batches:
        return clips_per_s(batches, n_steps, training, device)


@contextmanager
def utilization() -> Iterator[list[int]]:
    """Fill a list with the utilization of the GPU, in percent, five times a second until the body ends."""
    query = ("nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--loop-ms=200", "--id=0")
    samples: list[int] = []
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield samples
        finally:
            process.terminate()
            samples += [int(line) for line in process.communicate()[0].split()]


def train_script(folder: Path, *options: object) -> tuple[float, str]:
    """Return the seconds that train.py takes from start to end, and its last line."""
    arguments = ("--catalog", "catalog.csv", "--features", "features", "--checkpoints", "checkpoints",
                 "--epochs", EPOCHS, *options)  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(TRAIN), *map(str, arguments)], cwd=folder, check=False, capture_output=True, text=True,
        env={**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - started, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("batch_size", BATCH_SIZES)
def test_loop_is_nearly_as_fast_as_the_step_alone(
    folder: Path, labels: dict[str, dict[str, list[str]]], batch_size: int
) -> None:
    alone = step_alone(batch_size, GPU)
    with utilization() as busy:
        with_data = loop(dataset_of(folder, labels), batch_size, GPU)
    progress.echo(
        f"\n{torch.cuda.get_device_name()}, {DEFAULT_MODEL}, batches of {batch_size}: step alone {alone:,.0f} clips/s, "
        f"loop with its data path {with_data:,.0f} ({with_data / alone:.2f}; the GPU is busy in "
        f"{np.median(busy or [0]):.0f} % of the time, starts of process and first batch included)"
    )
    assert with_data >= MIN_SHARE_OF_STEP * alone


def test_train_script_runs_on_the_gpu(folder: Path) -> None:
    with utilization() as busy:
        seconds, last_line = train_script(folder, "--use-gpu", "--batch-size", BATCH_SIZES[-1])
    progress.echo(f"\ntrain.py --use-gpu: {seconds:.0f} s, GPU busy {np.mean(busy or [0]):.0f} %; {last_line}")
    assert "is the candidate" in last_line
