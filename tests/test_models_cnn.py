import inspect

import pytest
import torch

from musictag.errors import UsageError
from musictag.models import build_model
from musictag.models.cnn import CNN


@pytest.mark.parametrize(("n_frames", "n_mels"), [(187, 96), (186, 95), (20, 8), (3, 2)])
def test_clips_of_any_size_become_one_logit_per_tag(n_frames: int, n_mels: int) -> None:
    model = build_model("cnn", {}, n_mels=n_mels, n_tags=7)
    logits = model(torch.rand(3, n_frames, n_mels))
    assert logits.shape == (3, 7)
    assert logits.dtype == torch.float32


def test_layers_have_the_documented_shapes() -> None:
    model = CNN(n_mels=96, n_tags=5).eval()
    shapes = []

    def note(_module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        shapes.append(str(tuple(output.shape[1:]))[1:-1].rstrip(","))

    for layer in (model.input_norm, *model.blocks, model.pitch, model.rhythm, model.dense, model.head):
        layer.register_forward_hook(note)
    model(torch.rand(2, 187, 96))
    documented = inspect.getdoc(CNN)
    assert documented is not None
    # After each block's last layer, and after all others; the flattened shape is the last block's.
    for shape in [shapes[0], *shapes[4:17:4], *shapes[17:20]]:
        assert f"(B, {shape})" in documented, shape
    assert shapes[20] == "5"


def test_blocks_keep_channels_last() -> None:
    model = CNN(n_mels=16, n_tags=2)
    outputs = []
    model.blocks.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    model(torch.rand(2, 24, 16))
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)


def test_a_clip_scores_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = CNN(n_mels=96, n_tags=5).eval()
    log_mel = torch.rand(4, 187, 96)
    torch.testing.assert_close(model(log_mel)[2:3], model(log_mel[2:3]), rtol=0, atol=1e-5)


def test_every_weight_learns() -> None:
    torch.manual_seed(0)
    model = CNN(n_mels=16, n_tags=3, channels=(4, 8), hidden=16)
    model(torch.rand(8, 24, 16)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name


def test_a_pitch_and_its_octave_are_told_apart() -> None:
    # Global pooling over frequency would make these two equal.
    torch.manual_seed(0)
    model = CNN(n_mels=64, n_tags=4, dropout=0.0)
    log_mel = torch.zeros(2, 40, 64)
    log_mel[0, :, 16], log_mel[1, :, 48] = 1.0, 1.0
    low, high = model(log_mel)
    assert (low - high).abs().max() > 0.1


def test_unknown_model_is_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match=r"no model 'crnn'; there is cnn"):
        build_model("crnn", {}, n_mels=96, n_tags=2)


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"depth": 3}, "no parameter depth; it has channels, dropout, hidden"),
        ({"n_tags": 3}, "no parameter n_tags"),
        ({"channels": ()}, "CNN channels"),
        ({"channels": "wide"}, "CNN channels"),
        ({"channels": 8}, "CNN channels"),
        ({"hidden": 0}, "CNN hidden"),
        ({"dropout": 1.0}, "CNN dropout"),
        ({"dropout": "half"}, "CNN dropout"),
    ],
)
def test_params_that_cannot_build_a_model_are_named(params: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build_model("cnn", params, n_mels=96, n_tags=2)
