import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from ray.cluster_utils import Cluster

from musictag.features.config import FeatureConfig
from musictag.models import artifact, specs
from musictag.models.architectures import build_model
from processes import committing_often
from torture.runs import SCRIPTS, Job, Reference, measure
from torture.s3 import server  # noqa: F401 # a fixture

SEED = int(os.environ.get("TORTURE_SEED") or random.SystemRandom().randrange(1_000_000))
N_SONGS, N_RECORDINGS, SECONDS = 116, 4, 15.0
BROKEN = {"text.mp3": b"words, and no music", "empty.mp3": b"", "zeros.flac": bytes(5_000)}
VOCABULARY = ("calm", "dance", "sad")
CONFIG = FeatureConfig()


def pytest_report_header() -> str:
    return f"random moments: TORTURE_SEED={SEED}"


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Return a generator seeded by the test's name: a test draws the same alone and among others."""
    return random.Random(f"{SEED} {request.node.name}")  # noqa: S311


@pytest.fixture(scope="session")
def catalog(tmp_path_factory: pytest.TempPathFactory, music: Callable, write_audio: Callable) -> Path:
    """Write a catalog of songs for eight parts, and some files that are not audio."""
    folder = tmp_path_factory.mktemp("catalog")
    recordings = [
        write_audio(folder / f"{n}.mp3", music(SECONDS, seed=n), 44_100).read_bytes() for n in range(N_RECORDINGS)
    ]
    for n in range(N_SONGS):
        (folder / f"song-{n:03d}.mp3").write_bytes(recordings[n % N_RECORDINGS])
    for name, content in BROKEN.items():
        (folder / name).write_bytes(content)
    names = sorted(path.name for path in folder.iterdir())
    listing = folder / "catalog.csv"
    listing.write_text("\n".join(["track_id,uri", *(f"{name},{name}" for name in names), "missing,missing.mp3"]) + "\n")
    return listing


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network."""
    return make_model(tmp_path_factory.mktemp("model") / "model", 0)


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another untrained network, with other scores."""
    return make_model(tmp_path_factory.mktemp("other") / "model", 1)


def make_model(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    spec = specs.TaggerSpec(
        architecture="cnn",
        params={},
        feature_config=CONFIG,
        vocabulary=VOCABULARY,
        thresholds=(0.4,) * len(VOCABULARY),
        calibration=((1.0, 0.0),) * len(VOCABULARY),
        provenance={},
    )
    network = build_model("cnn", {}, n_mels=CONFIG.n_mels, n_tags=len(VOCABULARY))
    artifact.save_model(folder, network.eval(), spec)
    return folder


@pytest.fixture(scope="session")
def featurize_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of featurize.py with more commits."""
    return committing_often(SCRIPTS / "featurize.py", tmp_path_factory.mktemp("scripts"))


@pytest.fixture(scope="session")
def tag_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of tag.py with more and smaller commits."""
    return committing_often(SCRIPTS / "tag.py", tmp_path_factory.mktemp("scripts"), block_tracks=16)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """Address of a Ray cluster that outlives the killed jobs."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="session")
def featurize_job(featurize_script: Path, catalog: Path) -> Callable[..., Job]:
    """Make jobs that featurize the catalog into a folder."""

    def job(folder: Path, *options: str, of: Path = catalog) -> Job:
        uri = str(folder / "features")
        return Job(featurize_script, ("--catalog", str(of), "--features", uri, *options), uri)

    return job


@pytest.fixture(scope="session")
def tag_job(tag_script: Path, model: Path) -> Callable[..., Job]:
    """Make jobs that tag a source, which options name, into a folder."""

    def job(folder: Path, *source: object, ray_address: str = "", by: Path = model) -> Job:
        uri = str(folder / "tags")
        options = (*map(str, source), "--model", str(by), "--tags", uri)
        return Job(tag_script, options, uri, {"RAY_ADDRESS": ray_address} if ray_address else {})

    return job


@pytest.fixture(scope="session")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The features table of the undisturbed run; it exists after `featurized`."""
    return tmp_path_factory.mktemp("featurized") / "features"


@pytest.fixture(scope="session")
def featurized(featurize_job: Callable[..., Job], catalog: Path, features: Path) -> Reference:
    """An undisturbed run of featurize.py."""
    return measure(featurize_job(features.parent), str(catalog), features.parent / "log")


@pytest.fixture(scope="session")
def tagged_from_audio(
    tag_job: Callable[..., Job], catalog: Path, tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """An undisturbed run of tag.py over audio, with its own Ray."""
    folder = tmp_path_factory.mktemp("tagged")
    return measure(tag_job(folder, "--catalog", catalog), str(catalog), folder / "log")


@pytest.fixture(scope="session")
def tagged_from_features(
    tag_job: Callable[..., Job],
    features: Path,
    featurized: Reference,
    ray_cluster: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Reference:
    """An undisturbed run of tag.py over features, on the shared Ray cluster."""
    folder = tmp_path_factory.mktemp("tagged")
    return measure(tag_job(folder, "--features", features, ray_address=ray_cluster), None, folder / "log")


@pytest.fixture(scope="session")
def tagged_by_another(
    tag_job: Callable[..., Job],
    features: Path,
    featurized: Reference,
    other_model: Path,
    ray_cluster: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Reference:
    """An undisturbed run of tag.py over features with the other model."""
    folder = tmp_path_factory.mktemp("tagged")
    job = tag_job(folder, "--features", features, ray_address=ray_cluster, by=other_model)
    return measure(job, None, folder / "log")
