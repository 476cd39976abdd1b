import inspect

import pytest
import torch
from torch import Tensor, nn

from musictag.errors import UsageError
from musictag.models.layers import dense_layers
from musictag.models.timbre import TimbrePath


def documented(tensor: Tensor) -> str:
    return f"(B, {', '.join(map(str, tensor.shape[1:]))})"


def test_layers_have_the_documented_shapes() -> None:
    path = TimbrePath(n_mels=96, channels=(8, 32, 64, 128), hidden=128).eval()
    shapes: list[str] = []

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        shapes.append(documented(output))

    for layer in (*path.blocks[3::4], path.pitch, path.rhythm, path):  # of a block its last layer
        layer.register_forward_hook(note)
    path.pitch.register_forward_pre_hook(lambda _module, inputs: shapes.append(documented(inputs[0])))
    x = torch.rand(2, 96, 187)
    path(x)
    table = inspect.getdoc(TimbrePath)
    assert table is not None
    rows = [line for line in table.splitlines() if "(B, " in line and line[0] in "ibfpr"]
    assert len(rows) == len(shapes) + 1 == 9
    for row, shape in zip(rows, [documented(x), *shapes], strict=True):
        assert shape in row


def test_blocks_keep_channels_last() -> None:
    path = TimbrePath(n_mels=16, channels=(4, 8), hidden=8)
    outputs: list[Tensor] = []
    path.blocks.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    path(torch.rand(2, 24, 16).transpose(1, 2))
    assert outputs[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("n_frames", "n_mels"), [(187, 96), (20, 8), (1, 1)])
def test_spectrograms_of_any_size_are_accepted(n_frames: int, n_mels: int) -> None:
    path = TimbrePath(n_mels=n_mels, channels=(4, 8, 8), hidden=6)
    assert path(torch.rand(3, n_mels, n_frames)).shape == (3, 12)


@pytest.mark.parametrize("n_mels", [0, -1, 2.5])
def test_an_invalid_n_mels_is_named(n_mels: float) -> None:
    with pytest.raises(UsageError, match="n_mels is"):
        TimbrePath(n_mels=n_mels, channels=(4,), hidden=4)  # type: ignore[arg-type]


def test_dropout_is_before_and_after_the_dense_layer_and_only_in_training() -> None:
    torch.manual_seed(0)
    layers = dense_layers(6, 200, 0.5)
    x = torch.rand(3, 6)
    kept = (layers(x) != 0).float().mean()
    whole = layers.eval()(x)
    assert whole.shape == (3, 200)
    assert torch.equal(whole, layers(x))
    assert kept < 0.7 * (whole != 0).float().mean()
