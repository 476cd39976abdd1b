import inspect

import pytest
import torch
from torch import nn

from musictag.errors import UsageError
from musictag.models.architectures import build_model
from musictag.models.vgg import VGG


@pytest.mark.parametrize(
    ("n_clips", "n_mels", "n_embedding"), [(1, 96, 256), (2, 80, 256), (3, 128, 512), (1, 63, 256)]
)
def test_clips_give_one_finite_logit_per_tag(n_clips: int, n_mels: int, n_embedding: int) -> None:
    model = build_model("vgg", {}, n_mels=n_mels, n_tags=5).eval()
    log_mel = torch.rand(n_clips, 187, n_mels)
    with torch.inference_mode():
        logits, embedding = model(log_mel), model.embed(log_mel)
    assert logits.shape == (n_clips, 5)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert embedding.shape == (n_clips, n_embedding)


def test_layers_have_the_documented_shapes() -> None:
    model = VGG(n_mels=96, n_tags=5).eval()
    shapes = []
    for layer in model.blocks:
        layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.rand(2, 187, 96))
    documented = inspect.getdoc(VGG)
    assert documented is not None
    for channels, frames, bands in shapes[4::5]:  # after each block's last layer
        assert f"(B, {channels}, {frames}, {bands})" in documented
    assert len(shapes) == 25


# 186 and 188 frames pool to the same size as 187, and would pass without a word.
@pytest.mark.parametrize("n_frames", [1, 186, 188, 400])
def test_clips_of_another_length_are_refused(n_frames: int) -> None:
    model = VGG(n_mels=96, n_tags=2).eval()
    for call in (model, model.embed):
        with pytest.raises(UsageError, match=f"vgg takes clips of 187 frames, these have {n_frames}"):
            call(torch.rand(1, n_frames, 96))


def test_the_embedding_has_all_channels_of_a_position_together() -> None:
    torch.manual_seed(0)
    model = VGG(n_mels=128, n_tags=2).eval()
    blocks = []
    model.blocks.register_forward_hook(lambda _module, _inputs, output: blocks.append(output))
    with torch.inference_mode():
        embedding = model.embed(torch.rand(1, 187, 128))
    for place, (frame, band) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        assert torch.equal(embedding[0, 128 * place : 128 * (place + 1)], blocks[0][0, :, frame, band])


def test_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = VGG(n_mels=64, n_tags=3)
    model(torch.rand(4, 187, 64)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name


def test_evaluation_is_deterministic_and_the_embedding_is_the_input_of_the_head() -> None:
    torch.manual_seed(0)
    model = VGG(n_mels=64, n_tags=3).eval()
    log_mel = torch.rand(3, 187, 64)
    with torch.inference_mode():
        logits = model(log_mel)
        assert torch.equal(model(log_mel), logits)
        assert torch.equal(model.head(model.embed(log_mel)), logits)
        torch.testing.assert_close(model(log_mel[1:2]), logits[1:2], rtol=0, atol=1e-5)


def test_batch_norm_follows_relu() -> None:
    kinds = [type(layer) for layer in VGG(n_mels=64, n_tags=3).blocks[:5]]
    assert kinds == [nn.Conv2d, nn.ReLU, nn.BatchNorm2d, nn.MaxPool2d, nn.Dropout]


def test_too_few_mel_bands_are_refused() -> None:
    with pytest.raises(UsageError, match="vgg n_mels is 62: its pooling needs at least 63 bands"):
        build_model("vgg", {}, n_mels=62, n_tags=5)
