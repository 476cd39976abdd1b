"""Stores that refuse: a token that has expired, a bucket without rights."""

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from musictag.jobs.entry_point import run_main
from musictag.storage import tables
from object_stores import free_port, running, set_environment

SERVER = Path(__file__).parents[1] / "refusing_store.py"
EXPIRED = 400, "ExpiredToken", "The provided token has expired."
DENIED = 403, "AccessDenied", "Access Denied."

pytestmark = pytest.mark.slow


@pytest.fixture(params=[EXPIRED, DENIED], ids=["expired", "denied"])
def refusal(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, str, str]]:
    """The answer of the store that the environment names, to every request."""
    port = free_port()
    keys = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1"}
    set_environment(monkeypatch, {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", **keys})
    with running(port, sys.executable, SERVER, port, *request.param):
        yield request.param


def test_refused_catalog_and_tables_are_one_sentence(
    refusal: tuple[int, str, str],
    tmp_path: Path,
    script: Callable[[str], ModuleType],
    featurize_here: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, code, message = refusal
    (tmp_path / "catalog.csv").write_text("track_id,uri\na,a.wav\n")
    (tmp_path / "a.wav").touch()
    features = "s3://music/features"
    assert featurize_here("--catalog", "s3://music/catalog.csv", "--features", tmp_path / "none") == 2
    assert capsys.readouterr().err == f"error: catalog s3://music/catalog.csv: cannot be read: {message}\n"
    assert featurize_here("--catalog", tmp_path / "catalog.csv", "--features", features) == 1
    refused = rf"error: table {features}: {code}: {message} \(GET http://127.0.0.1:\d+/music.*\)\n"
    assert re.fullmatch(refused, capsys.readouterr().err)
    tag = ["--features", features, "--tags", str(tmp_path / "tags"), "--model", "mtt-musicnn"]
    assert run_main(script("tag").main, tag) == 1
    assert re.fullmatch(refused, capsys.readouterr().err)
    assert {path.name for path in tmp_path.iterdir()} == {"catalog.csv", "a.wav"}


def test_refused_audio_is_a_failed_track_with_its_reason(
    refusal: tuple[int, str, str], tmp_path: Path, featurize_here: Callable[..., int]
) -> None:
    (tmp_path / "catalog.csv").write_text("track_id,uri\na,s3://music/a.wav\n")
    table = tmp_path / "features"
    for attempts in (1, 2):
        assert featurize_here("--catalog", tmp_path / "catalog.csv", "--features", table) == 1
        (failure,) = tables.read_columns(f"{table}-failures", ("error", "message", "attempts")).to_pylist()
        assert (failure["error"], failure["attempts"]) == ("AudioUnreachableError", attempts)
        assert "s3://music/a.wav: cannot be read" in failure["message"]
