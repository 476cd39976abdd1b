import pytest
import torch

from musictag.errors import UsageError
from musictag.models.architectures import build_model
from musictag.models.musicnn import Musicnn
from musictag.models.vgg import VGG

SMALL_CNN = {"architecture": "cnn", "params": {"channels": [4, 8], "hidden": 16}}
SMALL_MUSICNN = {"architecture": "musicnn", "params": {"timbral": [3, 2], "temporal": [1, 2, 1]}}


def ensemble(*members, n_mels=16, n_tags=3):
    torch.manual_seed(0)
    return build_model("ensemble", {"members": list(members)}, n_mels=n_mels, n_tags=n_tags).eval()


def test_the_logits_are_the_mean_of_the_members():
    model = ensemble(SMALL_CNN, SMALL_MUSICNN)
    log_mel = torch.rand(2, 24, 16)
    cnn, musicnn = model.members
    assert model(log_mel).shape == (2, 3)
    torch.testing.assert_close(model(log_mel), (cnn(log_mel) + musicnn(log_mel)) / 2)


def test_an_ensemble_equals_one_linear_head_over_all_embeddings():
    model = ensemble(
        {"architecture": "musicnn", "params": {}}, {"architecture": "vgg", "params": {}}, n_mels=96, n_tags=4
    )
    musicnn, vgg = model.members
    assert isinstance(musicnn, Musicnn)
    assert isinstance(vgg, VGG)
    log_mel = torch.rand(2, 187, 96)
    embeddings = torch.cat([musicnn.embed(log_mel), vgg.embed(log_mel)], dim=1)  # (B, 200 + 256)
    weight = torch.cat([musicnn.head.weight, vgg.head.weight], dim=1) / 2
    bias = (musicnn.head.bias + vgg.head.bias) / 2
    torch.testing.assert_close(model(log_mel), embeddings @ weight.T + bias, rtol=1e-4, atol=1e-5)


def test_members_of_the_same_architecture_have_different_weights():
    first, second = ensemble(SMALL_CNN, SMALL_CNN).members
    assert not torch.equal(first.head.weight, second.head.weight)


def test_every_member_has_gradients():
    model = ensemble(SMALL_CNN, SMALL_MUSICNN).train()
    model(torch.rand(8, 24, 16)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.requires_grad != name.startswith("members.1.input_norm"), name
        if weight.requires_grad:
            assert weight.grad is not None, name
            assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({}, r"ensemble members is \(\)"),
        ({"members": []}, r"ensemble members is \[\]: a list with at least one network is needed"),
        ({"members": "cnn"}, "ensemble members is 'cnn'"),
        ({"members": 2}, "ensemble members is 2"),
        ({"members": {"cnn": {}}}, "ensemble members is "),
        ({"members": [SMALL_CNN, "cnn"]}, r"ensemble members\[1\] is 'cnn': its fields must be architecture"),
        ({"members": [{"architecture": "cnn"}]}, r"ensemble members\[0\] is .*must be architecture and params"),
        ({"members": [{**SMALL_CNN, "n_tags": 2}]}, r"ensemble members\[0\] is .*must be architecture and params"),
        ({"members": [{"architecture": "crnn", "params": {}}]}, r"members\[0\]\.architecture is 'crnn'; there is cnn"),
        ({"members": [{"architecture": ["cnn"], "params": {}}]}, r"members\[0\]\.architecture is \['cnn'\]"),
        ({"members": [{"architecture": "ensemble", "params": {"members": [SMALL_CNN]}}]},
         r"members\[0\]\.architecture is 'ensemble'; there is cnn, musicnn, resnet, three-path, vgg$"),
        ({"members": [{"architecture": "cnn", "params": []}]}, r"members\[0\]\.params is \[\]: it must be an object"),
        ({"members": [{"architecture": "cnn", "params": {"depth": 3}}]}, r"members\[0\]\.params: .*no parameter depth"),
        ({"members": [SMALL_CNN, {"architecture": "cnn", "params": {"hidden": 0}}]}, r"members\[1\].params: hidden is"),
        ({"depth": 2}, "model 'ensemble' has no parameter depth; it has members"),
    ],
)  # fmt: skip
def test_invalid_params_of_an_ensemble_are_named(params, complaint):
    with pytest.raises(UsageError, match=complaint):
        build_model("ensemble", params, n_mels=16, n_tags=2)
