import hashlib
from pathlib import Path

import pytest

from musictag.errors import ModelError
from musictag.models import artifact_files
from musictag.storage import checksums


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "weights.safetensors").write_bytes(b"weights")
    (tmp_path / "tagger.json").write_bytes(b"{}")
    return tmp_path


def test_each_file_has_its_digest(folder: Path) -> None:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in
               (("sha256.tagger.json", b"{}"), ("sha256.weights.safetensors", b"weights"))}  # fmt: skip
    assert artifact_files.file_digests(folder) == digests
    assert checksums.file_sha256(folder / "tagger.json") == digests["sha256.tagger.json"]


def test_an_unchanged_model_passes_and_other_tags_are_ignored(folder: Path) -> None:
    artifact_files.check_digests(folder, {**artifact_files.file_digests(folder), "decision": "promoted"})


def test_changed_added_and_removed_files_are_named(folder: Path) -> None:
    recorded = artifact_files.file_digests(folder)
    (folder / "weights.safetensors").write_bytes(b"weightr")
    (folder / "tagger.json").unlink()
    (folder / "code.py").write_text("")
    with pytest.raises(ModelError, match=r"code\.py, tagger\.json, weights\.safetensors changed"):
        artifact_files.check_digests(folder, recorded)


def test_a_model_without_recorded_digests_is_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"tagger\.json, weights\.safetensors changed"):
        artifact_files.check_digests(folder, {})
