import dataclasses
from pathlib import Path

import pytest
import torch

from musictag.errors import UsageError
from musictag.features.config import FeatureConfig
from musictag.models.architectures import build_model
from musictag.models.artifact import load_model, save_model
from musictag.models.specs import TaggerSpec
from musictag.models.three_path import PITCH_WIDTH, RHYTHM_WIDTH, ThreePath

SMALL = {"channels": (4, 8), "hidden": 16}


@pytest.mark.parametrize(("n_frames", "n_mels"), [(187, 96), (186, 95), (20, 8), (3, 2), (1870, 16)])
def test_clips_of_any_size_give_one_logit_per_tag(n_frames: int, n_mels: int) -> None:
    torch.manual_seed(0)
    model = build_model("three-path", SMALL, n_mels=n_mels, n_tags=7)
    logits = model(torch.rand(3, n_frames, n_mels))
    assert logits.shape == (3, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_every_path_affects_the_logits() -> None:
    torch.manual_seed(0)
    model = ThreePath(n_mels=96, n_tags=5).eval()
    widths = []
    for path in (model.timbre, model.rhythm, model.pitch):
        path.register_forward_hook(lambda _module, _inputs, output: widths.append(output.shape[1]))
    log_mel = torch.rand(2, 187, 96)
    logits = model(log_mel)
    assert widths == [2 * 128, RHYTHM_WIDTH, PITCH_WIDTH]
    for path in (model.timbre, model.rhythm, model.pitch):
        deaf = path.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
        assert not torch.allclose(model(log_mel), logits, atol=1e-4)
        deaf.remove()
    assert torch.equal(model(log_mel), logits)


def test_the_timbre_path_gets_the_mean_of_every_two_frames() -> None:
    model = ThreePath(n_mels=8, n_tags=2, **SMALL).eval()
    heard: dict[str, torch.Tensor] = {}
    model.timbre.register_forward_pre_hook(lambda _, given: heard.update(timbre=given[0]))
    model.rhythm.register_forward_pre_hook(lambda _, given: heard.update(rhythm=given[0]))
    model(torch.rand(2, 5, 8))
    levelled = heard["rhythm"]
    expected = [levelled[..., :2].mean(dim=2), levelled[..., 2:4].mean(dim=2), levelled[..., 4]]
    torch.testing.assert_close(heard["timbre"], torch.stack(expected, dim=2))


def test_a_clip_scores_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = ThreePath(n_mels=96, n_tags=5).eval()
    log_mel = torch.rand(4, 187, 96)
    torch.testing.assert_close(model(log_mel)[2:3], model(log_mel[2:3]), rtol=0, atol=1e-5)


def test_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = ThreePath(n_mels=16, n_tags=3, **SMALL)
    model(torch.rand(8, 60, 16)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"depth": 3}, "no parameter depth; it has channels, dropout, fmax, fmin, hidden"),
        ({"channels": ()}, "channels is"),
        ({"channels": "wide"}, "channels is"),
        ({"hidden": 0}, "hidden is"),
        ({"dropout": 1.0}, "dropout is"),
        ({"fmin": -20.0}, r"fmin is -20\.0 and fmax 8000\.0"),
        ({"fmin": 9000.0}, r"fmin is 9000\.0 and fmax 8000\.0"),
        ({"fmax": "high"}, r"fmin is 0\.0 and fmax high"),
    ],
)
def test_invalid_params_are_named(params: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build_model("three-path", params, n_mels=96, n_tags=2)


def test_a_saved_model_loads_with_its_fmin_and_fmax(tmp_path: Path) -> None:
    config = FeatureConfig(n_mels=24, clip_frames=24, fmin=40.0, fmax=6000.0)
    bands = {"fmin": config.fmin, "fmax": config.fmax}
    spec = TaggerSpec(
        architecture="three-path", params={**SMALL, **bands}, feature_config=config, vocabulary=("a", "b"),
        thresholds=(0.5, 0.5), calibration=((1.0, 0.0),) * 2, provenance={},
    )  # fmt: skip
    torch.manual_seed(0)
    model = build_model("three-path", spec.params, n_mels=24, n_tags=2)
    log_mel = torch.rand(8, 24, 24)
    model(log_mel)  # moves the running statistics off their start
    save_model(tmp_path, model, spec)
    loaded, loaded_spec = load_model(tmp_path)
    assert loaded_spec == spec
    assert {name: loaded_spec.params[name] for name in bands} == bands
    assert torch.equal(loaded(log_mel), model.eval()(log_mel))
    assert loaded.state_dict().keys() == model.state_dict().keys()
    other = build_model("three-path", dataclasses.asdict(spec)["params"] | {"fmax": 8000.0}, n_mels=24, n_tags=2)
    assert not torch.equal(other.pitch.pitches, loaded.pitch.pitches)
