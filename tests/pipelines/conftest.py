import csv
import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import ray.cloudpickle
import soundfile
import torch
from ray.cluster_utils import Cluster

from musictag.catalog import reader, splits
from musictag.catalog.vocabulary import encode
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.evaluation import metrics
from musictag.features import extract
from musictag.features.config import FeatureConfig
from musictag.features.reader import scan_for_labels
from musictag.features.table import SCHEMA, open_features
from musictag.jobs.entry_point import run_main
from musictag.jobs.machine import n_cores
from musictag.models.architectures import build_model
from musictag.models.artifact import save_model
from musictag.models.specs import TaggerSpec
from musictag.storage import commits, tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches
from musictag.training.checkpoints import TrainingState
from musictag.training.loop import fit
from musictag.training.recipes import FROM_SCRATCH

SCRIPTS = Path(__file__).parents[2] / "pipelines"
SAMPLE_RATE = 16_000
N_TRACKS, N_ARTISTS = 48, 24
SOUNDS = ("clicks", "noise", "tone")
TRACKS_OF_A_FILE = 12
CONFIG = FeatureConfig()
TRAINING = dataclasses.replace(FROM_SCRATCH, epochs=4, batch_size=8, clips_per_track=2, learning_rate=0.003, seed=3)


@dataclasses.dataclass(frozen=True)
class Corpus:
    """A synthesized catalog and its features; tests must not change the folder, and copy `features` before writing."""

    folder: Path
    catalog: Path
    features: Path
    labels: splits.Labels
    vocabulary: tuple[str, ...]

    def targets(self, split: str) -> dict[str, np.ndarray]:
        tags = self.labels.tags[split]
        return dict(zip(tags, encode(list(tags.values()), self.vocabulary), strict=True))


@dataclasses.dataclass(frozen=True)
class Home:
    """A folder to run scripts in, with its own MLflow store."""

    folder: Path
    ray_address: str

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def start(self, script: Path | str, *args: object, **env: str) -> subprocess.Popen[str]:
        """Start a script as a user does, in this folder."""
        return subprocess.Popen(
            [sys.executable, str(SCRIPTS / script), *map(str, args)],
            cwd=self.folder,
            env={**os.environ, "MLFLOW_TRACKING_URI": self.tracking_uri, "RAY_ADDRESS": self.ray_address, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: Path | str, *args: object, **env: str) -> tuple[int, str, str]:
        """Run a script as a user does; return exit code, stdout and stderr."""
        process = self.start(script, *args, **env)
        try:
            out, err = process.communicate(timeout=280)
        finally:
            process.kill()
        return process.returncode, out, err


def sound(tags: list[str], rng: np.random.Generator) -> np.ndarray:
    time = np.arange(round(rng.uniform(3.2, 4.0) * SAMPLE_RATE)) / SAMPLE_RATE
    waveform = 0.002 * rng.standard_normal(len(time))
    if "noise" in tags:
        waveform += 0.1 * rng.standard_normal(len(time))
    if "tone" in tags:
        waveform += 0.3 * np.sin(2 * np.pi * rng.uniform(300, 900) * time)
    if "clicks" in tags:
        waveform[:: SAMPLE_RATE // 8] += 0.9
    return waveform.astype(np.float32)


def write_track(path: Path, tags: list[str], seed: int) -> None:
    soundfile.write(path, sound(tags, np.random.default_rng(seed)), SAMPLE_RATE)


def write_catalog(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["track_id", "uri", "artist", "title", "tags"])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Tones, noise, clicks and mixtures of them by several artists, and two tracks without tags."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for n in range(N_TRACKS + 2):
        tags = [name for bit, name in enumerate(SOUNDS) if n >> bit & 1] or ["quiet"]
        name, artist = f"track-{n:02d}", f"artist {n * N_ARTISTS // N_TRACKS}"
        write_track(folder / f"{name}.wav", tags, seed=n)
        tagged = ";".join(tags) if n < N_TRACKS else ""
        rows.append({"track_id": name, "uri": f"{name}.wav", "artist": artist, "title": f"Song {n}", "tags": tagged})
    write_catalog(folder / "catalog.csv", rows)

    tracks = reader.read_catalog(str(folder / "catalog.csv")).tracks
    uri = str(folder / "features")
    featurize(uri, CONFIG, dict(zip(tracks["track_id"].to_pylist(), tracks["uri"].to_pylist(), strict=True)))
    labels = splits.tags_by_split(tracks, scan_for_labels(uri), tables.companion_uri(uri, "splits"))
    return Corpus(folder, folder / "catalog.csv", folder / "features", labels, tuple(sorted([*SOUNDS, "quiet"])))


def featurize(uri: str, config: FeatureConfig, uris: dict[str, str]) -> None:
    open_features(uri, config, None)
    tracks = list(uris.items())
    for begin in range(0, len(tracks), TRACKS_OF_A_FILE):
        rows = (extract.featurize(*track, config) for track in tracks[begin : begin + TRACKS_OF_A_FILE])
        commits.append_rows(uri, SCHEMA, rows)


@pytest.fixture(scope="session")
def trained(corpus: Corpus) -> TrainingState:
    """Train on the corpus without Ray."""

    def rows(split: str) -> Any:
        targets = corpus.targets(split)
        return batches.labelled_rows(tables.read_rows(str(corpus.features), SCORE_COLUMNS, targets), targets)

    def train_batches(epoch: int) -> Any:
        return batches.train_batches(rows("train"), CONFIG, TRAINING, epoch=epoch)

    def validate(model: torch.nn.Module) -> dict[str, float]:
        _, truth, scores = score_labelled(model, rows("validation"), CONFIG)
        return {"val_loss": metrics.log_loss(truth, scores)}

    n_threads = torch.get_num_threads()
    torch.set_num_threads(n_cores())  # as the one worker of train.py does
    try:
        return fit(
            network(TRAINING.seed, corpus.vocabulary),
            TRAINING,
            train_batches=train_batches,
            steps_per_epoch=batches.count_batches(len(corpus.labels.tags["train"]), TRAINING),
            validate=validate,
            on_epoch=lambda state: None,
        )
    finally:
        torch.set_num_threads(n_threads)


def network(seed: int, vocabulary: tuple[str, ...]) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_model("cnn", {}, n_mels=CONFIG.n_mels, n_tags=len(vocabulary))


@pytest.fixture(scope="session")
def artifacts(corpus: Corpus, trained: TrainingState, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Model folders of a trained and of an untrained network."""
    spec = TaggerSpec(
        architecture="cnn",
        params={},
        feature_config=CONFIG,
        vocabulary=corpus.vocabulary,
        thresholds=(0.4,) * len(corpus.vocabulary),
        calibration=((1.0, 0.0),) * len(corpus.vocabulary),
        provenance={},
    )
    folder = tmp_path_factory.mktemp("artifacts")
    model = network(TRAINING.seed, corpus.vocabulary)
    save_model(folder / "fresh", model, spec)
    model.load_state_dict(trained.best_weights)
    save_model(folder / "trained", model, spec)
    return {"fresh": folder / "fresh", "trained": folder / "trained"}


@pytest.fixture(scope="session")
def scripts() -> Path:
    """The folder of the scripts."""
    return SCRIPTS


@pytest.fixture(scope="session")
def script() -> Callable[[str], ModuleType]:
    """Import a script by its path."""

    loaded: dict[str, ModuleType] = {}

    def load(name: str) -> ModuleType:
        if name not in loaded:
            spec = importlib.util.spec_from_file_location(f"script_{name}", SCRIPTS / f"{name}.py")
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[module.__name__] = module  # dataclasses look their module up
            spec.loader.exec_module(module)
            ray.cloudpickle.register_pickle_by_value(module)  # as what a user runs, no worker can import it
            loaded[name] = module
        return loaded[name]

    return load


@pytest.fixture(scope="session")
def featurize_here(script: Callable[[str], ModuleType]) -> Callable[..., int]:
    """Call featurize.py in this process and on one thread, which starts faster; returns the exit code."""
    engine = "--runner=DirectRunner", "--direct_running_mode=in_memory"
    return lambda *options: run_main(script("featurize").main, [*engine, *map(str, options)])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, empty_mlflow: Path, ray_cluster: str) -> Home:
    """A home that all tests of a file share."""
    folder = tmp_path_factory.mktemp("home")
    shutil.copy(empty_mlflow, folder / "mlflow.db")
    return Home(folder, ray_cluster)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Address of a Ray cluster that all tests share, because it takes seconds to start."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def call(
    script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Call a script in this process, which starts faster; returns exit code, stdout and stderr."""

    def run(home: Home, name: str, *args: object, tracking_uri: str | None = None) -> tuple[int, str, str]:
        monkeypatch.chdir(home.folder)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri or home.tracking_uri)
        monkeypatch.setenv("RAY_ADDRESS", home.ray_address)
        capsys.readouterr()
        code = run_main(script(name).main, list(map(str, args)))
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def own_home(ray_cluster: str, empty_mlflow: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home for one test, which may change the registry."""
    shutil.copy(empty_mlflow, tmp_path / "mlflow.db")
    own = Home(tmp_path, ray_cluster)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own.tracking_uri)
    return own


@pytest.fixture
def add_model(own_home: Home) -> Callable[..., str]:
    """Log and register a model folder as train.py does; return its version."""

    def add(folder: Path, alias: str = "candidate") -> str:
        mlflow_runs.connect()
        with mlflow_runs.start_run("made", {}, {}) as run_id:
            uri = mlflow_runs.log_model(run_id, folder)
        version = mlflow_registry.register(mlflow_registry.fetch(uri))
        mlflow_registry.set_alias(version, alias)
        return version

    return add


@pytest.fixture
def evaluated(
    own_home: Home, add_model: Callable[..., str], call: Callable[..., tuple[int, str, str]], corpus: Corpus
) -> Callable[[Path], str]:
    """Register and evaluate a model folder; return its version."""

    def evaluate(folder: Path) -> str:
        version = add_model(folder)
        options = "--model", f"models:/musictag/{version}", "--catalog", corpus.catalog, "--features", corpus.features
        assert call(own_home, "evaluate", *options)[0] == 0
        return version

    return evaluate
