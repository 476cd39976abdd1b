"""Speed of training and scoring on one GPU. No network access is needed.

Training: the step alone, the loop with its data path, and train.py. Scoring: networks alone, the path from cells to
track scores, tag.py, and scores in float16 beside float32.

Each figure is printed; targets are asserted. Without a GPU the tests are skipped. The functions take any device, so
that they can be tried on a CPU. The published networks must be installed (`musictag weights`).
"""

import csv
import dataclasses
import functools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor, nn

from benchmarks.tagging import CONFIG, add_tracks
from golden import synthesize
from musictag.features.clips import cut_clips
from musictag.features.log_mel import log_mel
from musictag.features.table import CELL_DTYPE
from musictag.jobs import progress
from musictag.models.architectures import SINGLE, build_model
from musictag.models.artifact import load_model
from musictag.models.published import pretrained
from musictag.storage import tables
from musictag.tagging.rows import feature_rows
from musictag.tagging.scorers import (
    BATCHES_PER_GROUP,
    GPU_BATCH_SIZE,
    HalfNetworkScorer,
    NetworkScorer,
    WeightedClips,
    score_tracks,
)
from musictag.training.config import TrainingConfig
from musictag.training.dataset import Dataset, make_dataset
from musictag.training.loader import TrainBatches, loading
from musictag.training.loop import fit
from musictag.training.recipes import DEFAULT_MODEL, FROM_SCRATCH
from sample_tables import find_files

PIPELINES = Path(__file__).parents[2] / "pipelines"
GPU = torch.device("cuda")
N_TRACKS, N_CLIPS = int(os.environ.get("GPU_TRACKS", "3000")), 10
EVERY_VALIDATION = 30  # every thirtieth track is a validation track
TAGS = tuple(f"tag {k:02d}" for k in range(50))
BATCH_SIZES = (64, 256)
EPOCHS, WARM_UP_EPOCHS = 5, 2
STEPS_ALONE = 60
MIN_SHARE_OF_STEP = 0.9
NETWORKS = (*pretrained.PUBLISHED, *SINGLE)
GROUPS = 3
MIN_SHARE_OF_NETWORK = 0.8
MIN_TAGGED_CLIPS_PER_S = 15_000
"""Of tag.py with msd-musicnn, on an H100 and 16 cores."""
MAX_DIFFERENCE = 0.002

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


@pytest.fixture(scope="module")
def cells() -> pa.Table:
    """Return rows of a features table in memory, for some groups of large batches."""
    return made_cells(GROUPS * BATCHES_PER_GROUP * GPU_BATCH_SIZE // N_CLIPS)


def made_cells(n_tracks: int) -> pa.Table:
    """Return rows of a features table in memory, with ten clips each."""
    values = np.random.default_rng(0).random((N_CLIPS, CONFIG.clip_frames, CONFIG.n_mels), np.float32)
    row = {
        "track_id": "a",
        "duration_s": N_CLIPS * CONFIG.clip_seconds,
        "start_s": [n * CONFIG.clip_seconds for n in range(N_CLIPS)],
        "clips": (4 * values).astype(CELL_DTYPE).tobytes(),
    }
    return pa.Table.from_pylist([row] * n_tracks)


def make_training(batch_size: int) -> TrainingConfig:
    return dataclasses.replace(FROM_SCRATCH, batch_size=batch_size, epochs=EPOCHS)


def dataset_of(folder: Path, labels: dict[str, dict[str, list[str]]]) -> Dataset:
    uri = str(folder / "features")
    files = find_files(uri, [track for tracks in labels.values() for track in tracks])
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


def run_script(name: str, folder: Path, *options: object) -> tuple[float, str]:
    """Return the seconds that a script takes from start to end, and its last line."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, str(PIPELINES / name), *map(str, options)],
        cwd=folder, check=False, capture_output=True, text=True,
        env={**environment, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - started, done.stdout.splitlines()[-1]


def network(name: str) -> nn.Module:
    """Return a published network, or one of our own with fresh weights."""
    if name in pretrained.PUBLISHED:
        return load_model(pretrained.find(name))[0].eval()
    torch.manual_seed(0)
    return build_model(name, {}, n_mels=CONFIG.n_mels, n_tags=len(TAGS)).eval()


def network_alone(model: nn.Module, batch_size: int, n_batches: int, device: torch.device) -> float:
    """Return the clips per second of a network in float16 whose clips are on the device."""
    clips = 4 * torch.rand(batch_size, CONFIG.clip_frames, CONFIG.n_mels, device=device, dtype=torch.float16)
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.float16):
        model(clips).cpu()
        started = time.perf_counter()
        for _ in range(n_batches):
            logits = model(clips)
        logits.cpu()
    return n_batches * batch_size / (time.perf_counter() - started)


def scoring_path(model: nn.Module, cells: pa.Table) -> float:
    """Return the clips per second from a table of cells to the scores of its tracks."""
    score_tracks(model, feature_rows(cells), CONFIG)
    started = time.perf_counter()
    score_tracks(model, feature_rows(cells), CONFIG)
    return len(cells) * N_CLIPS / (time.perf_counter() - started)


def tagged_clips_per_s(tags_uri: str) -> float:
    """Return the clips per second of a run of tag.py, by the times of its rows, without its start and first calls."""
    rows = tables.read_columns(tags_uri, ("tagged_at", "n_clips"))
    calls = rows.group_by("tagged_at").aggregate([("n_clips", "sum")]).sort_by("tagged_at").to_pylist()
    calls = calls[len(calls) // 3 :]
    seconds = (calls[-1]["tagged_at"] - calls[0]["tagged_at"]).total_seconds()
    return float(sum(call["n_clips_sum"] for call in calls[:-1]) / seconds)


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
        seconds, last_line = run_script(
            "train.py", folder, "--catalog", "catalog.csv", "--features", "features", "--checkpoints", "checkpoints",
            "--epochs", EPOCHS, "--use-gpu", "--batch-size", BATCH_SIZES[-1],
        )  # fmt: skip
    progress.echo(f"\ntrain.py --use-gpu: {seconds:.0f} s, GPU busy {np.mean(busy or [0]):.0f} %; {last_line}")
    assert "is the candidate" in last_line


@pytest.mark.parametrize("name", NETWORKS)
def test_scoring_from_cells_is_nearly_as_fast_as_the_network_alone(name: str, cells: pa.Table) -> None:
    model = network(name).to(GPU)
    alone = network_alone(model, GPU_BATCH_SIZE, GROUPS * BATCHES_PER_GROUP, GPU)
    from_cells = scoring_path(model, cells)
    progress.echo(
        f"\n{torch.cuda.get_device_name()}, {name}, float16, batches of {GPU_BATCH_SIZE}: network alone "
        f"{alone:,.0f} clips/s, from cells to track scores {from_cells:,.0f} ({from_cells / alone:.2f})"
    )
    assert from_cells >= MIN_SHARE_OF_NETWORK * alone


@pytest.mark.parametrize("name", NETWORKS)
def test_track_scores_on_the_gpu_are_those_of_float32(name: str, music: Callable[..., np.ndarray]) -> None:
    of_music = log_mel(music(30, CONFIG.sample_rate).mean(axis=1).astype(np.float32), CONFIG)
    starts = list(range(0, len(of_music) - CONFIG.clip_frames, CONFIG.clip_frames))
    golden = synthesize.clips_of(log_mel(synthesize.synthesize(), CONFIG), CONFIG)
    tracks = [
        WeightedClips(clips.astype(CELL_DTYPE), np.ones(len(clips), np.float32))
        for clips in (golden, cut_clips(of_music, starts, CONFIG))
    ]
    expected = NetworkScorer(network(name)).score_group(tracks)
    difference = float(np.abs(HalfNetworkScorer(network(name).to(GPU)).score_group(tracks) - expected).max())
    progress.echo(f"\n{name}: track scores in float16 differ from those in float32 by up to {difference:.5f}")
    assert difference <= MAX_DIFFERENCE


def test_tag_script_runs_on_the_gpu(folder: Path) -> None:
    with utilization() as busy:
        seconds, last_line = run_script(
            "tag.py", folder, "--model", pretrained.DEFAULT, "--features", "features", "--tags", "tags", "--use-gpu"
        )
    clips_per_s = tagged_clips_per_s(str(folder / "tags"))
    progress.echo(
        f"\ntag.py --use-gpu, {pretrained.DEFAULT}, {N_TRACKS:,} tracks of {N_CLIPS} clips: {seconds:.0f} s, start "
        f"and first calls aside {clips_per_s:,.0f} clips/s, GPU busy {np.mean(busy or [0]):.0f} % of all; {last_line}"
    )
    assert clips_per_s >= MIN_TAGGED_CLIPS_PER_S
