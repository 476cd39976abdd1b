import inspect

import pytest
import torch

from musictag.errors import UsageError
from musictag.models.architectures import build_model
from musictag.models.resnet import Residual, ResNet

SMALL = {"channels": (4, 4, 8)}


@pytest.mark.parametrize(("n_frames", "n_mels"), [(187, 96), (186, 95), (20, 8), (3, 2), (1870, 16)])
def test_clips_of_any_size_give_one_logit_per_tag(n_frames: int, n_mels: int) -> None:
    model = build_model("resnet", SMALL, n_mels=n_mels, n_tags=7)
    logits = model(torch.rand(3, n_frames, n_mels))
    assert logits.shape == (3, 7)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_layers_have_the_documented_shapes() -> None:
    model = ResNet(n_mels=96, n_tags=5).eval()
    shapes: list[tuple[int, ...]] = []
    for layer in (model.input_norm, *model.blocks, model.dense, model.head):
        layer.register_forward_hook(lambda _module, _inputs, output: shapes.append(tuple(output.shape[1:])))
    with torch.inference_mode():
        model(torch.rand(1, 187, 96))
    table = inspect.getdoc(ResNet)
    assert table is not None
    rows = [line for line in table.splitlines() if "(B, " in line and line.startswith(("batch", "residual", "dense"))]
    assert len(rows) == len(shapes) - 1 == 9
    for row, shape in zip(rows, shapes, strict=False):
        assert f"(B, {', '.join(map(str, shape))})" in row
    assert shapes[-1] == (5,)


def test_the_documented_narrow_channels_give_a_sixteenth_of_the_weights() -> None:
    documented = (32, 32, 64, 64, 64, 64, 128)
    assert str(documented) in (inspect.getdoc(ResNet) or "")
    narrow, wide = (sum(weight.numel() for weight in ResNet(n_mels=96, n_tags=5, **params).parameters())
                    for params in ({"channels": documented}, {}))  # fmt: skip
    assert 14 < wide / narrow < 18  # channels are a quarter, so weights a sixteenth


def test_a_residual_block_adds_its_shortcut() -> None:
    torch.manual_seed(0)
    block = Residual(3, 5).eval()
    x = torch.rand(2, 3, 7, 9)
    around = block.around(x)
    with torch.no_grad():
        block.norm_2.weight.zero_()  # nothing comes through
    torch.testing.assert_close(block(x), around.clamp(min=0))
    assert block(x).shape == (2, 5, 4, 5)


def test_the_blocks_are_followed_by_the_global_maximum() -> None:
    torch.manual_seed(0)
    model = ResNet(n_mels=16, n_tags=3, **SMALL).eval()
    heard: list[torch.Tensor] = []
    model.blocks.register_forward_hook(lambda _module, _inputs, output: heard.append(output))
    model.dense.register_forward_pre_hook(lambda _module, inputs: heard.append(inputs[0]))
    model(torch.rand(2, 40, 16))
    assert torch.equal(heard[0].flatten(2).max(dim=2).values, heard[1])


def test_a_clip_scores_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = ResNet(n_mels=96, n_tags=5, **SMALL).eval()
    log_mel = torch.rand(4, 187, 96)
    torch.testing.assert_close(model(log_mel)[2:3], model(log_mel[2:3]), rtol=0, atol=1e-5)


def test_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = ResNet(n_mels=16, n_tags=3, **SMALL)
    model(torch.rand(8, 24, 16)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"hidden": 3}, "no parameter hidden; it has channels, dropout"),
        ({"channels": ()}, r"channels is \(\): positive integers"),
        ({"channels": (8, 0)}, r"channels is \(8, 0\)"),
        ({"channels": "wide"}, "channels is wide"),
        ({"channels": 8}, "channels is 8"),
        ({"dropout": 1.0}, r"dropout is 1\.0"),
    ],
)
def test_invalid_params_are_named(params: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build_model("resnet", params, n_mels=96, n_tags=2)
