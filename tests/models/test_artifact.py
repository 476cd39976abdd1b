import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from musictag.errors import ModelError
from musictag.features.config import FeatureConfig
from musictag.models.architectures import build_model
from musictag.models.artifact import load_model, save_model
from musictag.models.specs import TaggerSpec

FIXTURES = Path(__file__).parents[1] / "fixtures"
SPEC = TaggerSpec(
    architecture="cnn",
    params={"channels": (4, 8), "hidden": 16},
    feature_config=FeatureConfig(n_mels=16, clip_frames=24),
    vocabulary=("drums", "größer", "小调"),
    thresholds=(0.5, 0.25, 0.75),
    calibration=((1.0, 0.0), (2.0, -0.5), (0.5, 0.1)),
    provenance={"run": "a1b2"},
)


def small_model() -> nn.Module:
    torch.manual_seed(0)
    model = build_model(SPEC.architecture, SPEC.params, n_mels=16, n_tags=3)
    model(torch.rand(8, 24, 16))  # Moves the running statistics off their start.
    return model


def edit_spec(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    fields = json.loads((folder / "tagger.json").read_text())
    edit(fields)
    (folder / "tagger.json").write_text(json.dumps(fields))


def edit_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    edit(weights)
    safetensors.torch.save_file(weights, folder / "weights.safetensors")


def test_a_saved_model_loads_with_equal_logits_and_spec(tmp_path: Path) -> None:
    model = small_model()
    save_model(tmp_path / "deep" / "model", model, SPEC)
    loaded, spec = load_model(tmp_path / "deep" / "model")
    assert spec == SPEC
    assert not loaded.training
    log_mel = torch.rand(5, 24, 16)
    assert torch.equal(loaded(log_mel), model.eval()(log_mel))


def test_the_artifact_is_two_files_and_holds_the_feature_hash(tmp_path: Path) -> None:
    save_model(tmp_path, small_model(), SPEC)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tagger.json", "weights.safetensors"]
    fields = json.loads((tmp_path / "tagger.json").read_text(encoding="utf-8"))
    assert fields["feature_hash"] == SPEC.feature_config.feature_hash
    assert fields["vocabulary"] == ["drums", "größer", "小调"]


def test_saving_a_loaded_model_writes_identical_files(tmp_path: Path) -> None:
    save_model(tmp_path / "first", small_model(), SPEC)
    save_model(tmp_path / "again", *load_model(tmp_path / "first"))
    for name in ("tagger.json", "weights.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "first" / name).read_bytes()


def test_the_spec_of_an_old_model_is_written_as_it_was(tmp_path: Path) -> None:
    (old,) = FIXTURES.glob("version_0_1/mlartifacts/cfb96f3f161340ab9bfef9b1c6ebc204/**/tagger.json")
    save_model(tmp_path, *load_model(old.parent))
    assert (tmp_path / "tagger.json").read_bytes() == old.read_bytes()


def test_saving_a_model_that_does_not_fit_its_spec_keeps_the_old_files(tmp_path: Path) -> None:
    save_model(tmp_path, small_model(), SPEC)
    other = build_model("cnn", SPEC.params, n_mels=16, n_tags=4)
    with pytest.raises(ModelError, match=r"head\.bias has shape \(4,\), \(3,\) is needed"):
        save_model(tmp_path, other, SPEC)
    assert load_model(tmp_path)[1] == SPEC


@pytest.mark.parametrize("name", ["tagger.json", "weights.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    save_model(tmp_path, small_model(), SPEC)
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match=f"holds no {name}"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[1]", b""])
def test_a_broken_spec_is_named(tmp_path: Path, content: bytes) -> None:
    save_model(tmp_path, small_model(), SPEC)
    (tmp_path / "tagger.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"tagger\.json"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda fields: fields.update(format=2), "format is 2, this musictag reads 1"),
        (lambda fields: fields.pop("format"), "format is None"),
        (lambda fields: fields.pop("thresholds"), "field thresholds"),
        (lambda fields: fields.update(color="red"), "field color"),
        (lambda fields: fields.update(architecture="crnn"), "architecture, params: there is no model 'crnn'"),
        (lambda fields: fields.update(architecture=["cnn"]), "architecture"),
        (lambda fields: fields.update(params={"depth": 1}), "no parameter depth"),
        (lambda fields: fields.update(params=3), "params"),
        (lambda fields: fields.update(vocabulary="abc"), "vocabulary"),
        (lambda fields: fields.update(vocabulary=["a", "a", "b"]), "vocabulary"),
        (lambda fields: fields.update(vocabulary=[["a"], "b", "c"]), "vocabulary"),
        (lambda fields: fields.update(join="max"), "join is 'max'"),
        (lambda fields: fields.update(thresholds=[0.5, 0.5]), "thresholds has 2 entries for 3 tags"),
        (lambda fields: fields.update(thresholds=[0.5, 0.5, 1.5]), "thresholds"),
        (lambda fields: fields.update(thresholds=[0.5, "0.5", 0.5]), "thresholds"),
        (lambda fields: fields.update(calibration=[[1, 0], [1, 0], [1]]), "calibration"),
        (lambda fields: fields.update(calibration=[[1, 0], [1, 0], [float("nan"), 0]]), "calibration"),
        (lambda fields: fields.update(provenance={"run": 1}), "provenance"),
        (lambda fields: fields["feature_config"].update(hop=3), "feature_config: FeatureConfig has no field hop"),
        (lambda fields: fields["feature_config"].update(n_mels="16"), "feature_config"),
        (lambda fields: fields.update(feature_hash="0" * 16), "feature_hash is 0000000000000000"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, edit: Callable[[dict[str, Any]], object], complaint: str) -> None:
    save_model(tmp_path, small_model(), SPEC)
    edit_spec(tmp_path, edit)
    with pytest.raises(ModelError, match=r"tagger\.json") as caught:
        load_model(tmp_path)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda weights: weights.pop("head.bias"), "head.bias is missing"),
        (lambda weights: weights.update(extra=torch.zeros(2)), "extra is unexpected"),
        (lambda weights: weights.update({"head.bias": torch.zeros(9)}), "head.bias has shape (9,), (3,)"),
    ],
)
def test_weights_that_do_not_fit_are_named(
    tmp_path: Path, edit: Callable[[dict[str, torch.Tensor]], object], complaint: str
) -> None:
    save_model(tmp_path, small_model(), SPEC)
    edit_weights(tmp_path, edit)
    with pytest.raises(ModelError, match=r"weights\.safetensors does not fit tagger\.json") as caught:
        load_model(tmp_path)
    assert complaint in str(caught.value)


def test_broken_weights_are_named(tmp_path: Path) -> None:
    save_model(tmp_path, small_model(), SPEC)
    whole = (tmp_path / "weights.safetensors").read_bytes()
    (tmp_path / "weights.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match=r"weights\.safetensors cannot be read"):
        load_model(tmp_path)


def test_a_pickle_is_refused_as_weights(tmp_path: Path) -> None:
    save_model(tmp_path, small_model(), SPEC)
    torch.save(small_model().state_dict(), tmp_path / "weights.safetensors")
    with pytest.raises(ModelError, match="cannot be read"):
        load_model(tmp_path)


def test_params_that_are_not_json_are_refused() -> None:
    with pytest.raises(ModelError, match="params"):
        dataclasses.replace(SPEC, params={"channels": {1, 2}})
