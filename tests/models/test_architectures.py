import pytest
import torch
from torch import nn

from musictag.errors import UsageError
from musictag.models.architectures import SINGLE, build_model, params_from


@pytest.mark.parametrize("name", SINGLE)
def test_every_network_can_be_built_and_ends_in_a_linear_head(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name, params_from(name, fmin=0.0, fmax=8000.0), n_mels=96, n_tags=5).eval()
    assert isinstance(model.head, nn.Linear)
    assert model.head.out_features == 5
    with torch.inference_mode():
        logits = model(torch.rand(2, 187, 96))
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_params_from_settings_are_those_that_the_network_has() -> None:
    settings = {"fmin": 30.0, "fmax": 7000.0, "hop_length": 256}
    assert params_from("three-path", **settings) == {"fmin": 30.0, "fmax": 7000.0}
    for name in SINGLE.keys() - {"three-path"}:
        assert params_from(name, **settings) == {}


def test_an_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match=r"no model 'crnn'; there is classifier-chain, cnn, ensemble, "):
        build_model("crnn", {}, n_mels=96, n_tags=2)
