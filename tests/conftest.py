import os
import secrets
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from musictag.evaluation.results import Evaluation

# Read as MLflow and Ray are imported, and by every process that a test starts.
os.environ.update(
    MLFLOW_ALLOW_MODEL_CODE_EXECUTION="false",
    MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false",
    RAY_AUTH_MODE="token",
    RAY_AUTH_TOKEN=secrets.token_hex(32),
)

# These files take minutes. If they began last, one of the two workers would wait for the other at the end.
LONG_FILES = ("tests/pipelines/test_train.py", "tests/pipelines/test_tag.py", "tests/e2e/test_line.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONG_FILES))


def make_music(seconds: float, sample_rate: int = 44_100, channels: int = 2, seed: int = 0) -> np.ndarray:
    """Notes that ring and fade over a little noise: float32 (samples, channels), the channels differ."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    sound = 0.003 * rng.standard_normal((len(time), channels))
    for begin in np.arange(0, seconds, 0.25):
        since = time[(time >= begin) & (time < begin + 1)] - begin
        pitch = 110 * 2 ** (rng.integers(0, 36) / 12)
        note = sum(np.sin(2 * np.pi * pitch * h * since) / h for h in range(1, 8) if pitch * h < sample_rate / 2.5)
        first = np.searchsorted(time, begin)
        sound[first : first + len(since)] += (note * np.exp(-6 * since))[:, None] * rng.uniform(0.05, 0.2, channels)
    return sound.astype(np.float32)


def write_audio_file(path: Path, samples: np.ndarray, sample_rate: int, subtype: str | None = None) -> Path:
    """Write samples (samples, channels) in the format that the file's suffix names."""
    if path.suffix in (".m4a", ".aac"):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=sample_rate, layout="stereo")
            for begin in range(0, len(samples), stream.frame_size or 1024):
                block = np.ascontiguousarray(samples[begin : begin + (stream.frame_size or 1024)].T)
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = sample_rate, begin
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path
    container_format, subtype = ("OGG", "OPUS") if path.suffix == ".opus" else (None, subtype)
    with soundfile.SoundFile(
        path, "w", sample_rate, samples.shape[1], subtype=subtype, format=container_format
    ) as file:
        # libsndfile crashes when one long block is written to Ogg.
        for begin in range(0, len(samples), sample_rate):
            file.write(samples[begin : begin + sample_rate])
    return path


@pytest.fixture(scope="session")
def music() -> Callable[..., np.ndarray]:
    return make_music


@pytest.fixture(scope="session")
def write_audio() -> Callable[..., Path]:
    return write_audio_file


def make_evaluation(n_tags: int, n_tracks: int = 40, seed: int = 0) -> Evaluation:
    """Random truth, two tracks of each artist, and scores that hold some of it."""
    rng = np.random.default_rng(seed)
    targets = rng.random((n_tracks, n_tags)) < 0.3
    return Evaluation(
        split="test",
        track_ids=tuple(f"{n}.mp3" for n in range(n_tracks)),
        vocabulary=tuple(f"tag {k:02d}" for k in range(n_tags)),
        groups=tuple(f"artist:{n // 2}" for n in range(n_tracks)),
        targets=targets,
        scores=(0.5 * rng.random((n_tracks, n_tags)) + 0.4 * targets).astype(np.float32),
        raw_scores=(0.9 * targets).astype(np.float32),
        thresholds=np.full(n_tags, 0.45),
    )


@pytest.fixture(scope="session")
def evaluate() -> Callable[..., Evaluation]:
    return make_evaluation


@pytest.fixture
def by_hand() -> Evaluation:
    """Two tracks of one artist: jazz is given to both and true of one, polka to none and of none."""
    return Evaluation(
        split="test",
        track_ids=("a", "b"),
        groups=("artist:x", "artist:x"),
        vocabulary=("jazz", "polka"),
        targets=np.array([[True, False], [False, False]]),
        scores=np.array([[0.9, 0.1], [0.8, 0.2]], np.float32),
        raw_scores=np.array([[1.0, 0.0], [0.5, 0.5]], np.float32),
        thresholds=np.array([0.5, 1.0]),
    )


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it, to be copied: MLflow takes seconds to make one."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path
