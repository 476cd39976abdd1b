import inspect

import pytest
import torch
from torch import nn

from musictag.errors import UsageError
from musictag.models.architectures import build_model
from musictag.models.musicnn import Musicnn


@pytest.mark.parametrize(
    ("n_clips", "n_frames", "n_mels"),
    [(1, 1, 96), (2, 2, 96), (1, 400, 96), (2, 187, 80), (3, 50, 128), (1, 1, 3), (2, 400, 3)],
)
def test_clips_of_any_size_give_one_finite_logit_per_tag(n_clips: int, n_frames: int, n_mels: int) -> None:
    model = build_model("musicnn", {}, n_mels=n_mels, n_tags=5).eval()
    log_mel = torch.rand(n_clips, n_frames, n_mels)
    with torch.inference_mode():
        logits, embedding, frontend = model(log_mel), model.embed(log_mel), model.frontend(log_mel)
    assert logits.shape == (n_clips, 5)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert embedding.shape == (n_clips, 200)
    assert frontend.shape == (n_clips, 561, n_frames)


def test_layers_have_the_documented_shapes() -> None:
    model = Musicnn(n_mels=96, n_tags=5).eval()
    shapes = []

    def note(_module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        shapes.append((tuple(inputs[0].shape[1:]), tuple(output.shape[1:])))

    for layer in (*model.timbral, *model.temporal, *model.midend, model.dense, model.head):
        layer.register_forward_hook(note)
    model(torch.rand(2, 187, 96))
    assert [before for before, _ in shapes] == [
        *[(1, 187, 96)] * 5, (561, 187), (64, 187), (64, 187), (1506,), (200,)
    ]  # fmt: skip
    assert [after for _, after in shapes] == [
        *[(204, 187)] * 2, *[(51, 187)] * 3, *[(64, 187)] * 3, (200,), (5,)
    ]  # fmt: skip
    documented = inspect.getdoc(Musicnn)
    assert documented is not None
    for shape in ("(B, 204, T)", "(B, 51, T)", "(B, 561, T)", "(B, 64, T)", "(B, 1506)", "(B, 200)"):
        assert shape in documented


@pytest.mark.parametrize(("number", "frames"), [(0, 128), (1, 64), (2, 32)])
def test_an_even_filter_spans_one_frame_more_after_than_before(number: int, frames: int) -> None:
    # TensorFlow's 'same' padding: of 128 frames, 63 are before and 64 after.
    block = Musicnn(n_mels=3, n_tags=2).temporal[number].eval()
    nn.init.ones_(block.conv.weight)
    nn.init.zeros_(block.conv.bias)
    log_mel = torch.zeros(1, 1, 400, 3)
    log_mel[0, 0, 200] = 1.0
    with torch.inference_mode():
        seen = block(log_mel)[0, 0].nonzero().flatten()
    assert seen[0] == 200 - frames // 2
    assert seen[-1] == 200 + frames // 2 - 1
    assert len(seen) == frames


def test_pooled_channels_interleave_maximum_and_mean() -> None:
    model = Musicnn(n_mels=3, n_tags=2).eval()
    frontend = torch.rand(2, 561, 20)
    with torch.inference_mode():
        pooled = model.pool(frontend)
    assert pooled.shape == (2, 1506)
    torch.testing.assert_close(pooled[:, 0:1122:2], frontend.amax(dim=2))
    torch.testing.assert_close(pooled[:, 1:1122:2], frontend.mean(dim=2))


def test_the_front_end_is_the_maximum_over_frequency_for_both_signs_of_the_norm() -> None:
    torch.manual_seed(0)
    for block in (Musicnn(n_mels=16, n_tags=2).eval().timbral[0], Musicnn(n_mels=16, n_tags=2).eval().temporal[2]):
        for part in (block.norm.weight, block.norm.bias, block.norm.running_mean):
            nn.init.normal_(part)
        assert block.norm.weight.min() < 0 < block.norm.weight.max()
        x = torch.randn(2, 1, 20, 16)
        n_frames = block.conv.kernel_size[0]
        padded = nn.functional.pad(x, (0, 0, (n_frames - 1) // 2, n_frames // 2))
        with torch.inference_mode():
            every = block.norm(block.conv(padded).relu())  # convolution, ReLU, batch norm of each place
            torch.testing.assert_close(block(x), every.amax(dim=3), rtol=0, atol=1e-5)


def test_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = Musicnn(n_mels=16, n_tags=3)
    model(torch.rand(4, 187, 16)).square().sum().backward()
    for name, weight in model.named_parameters():
        if name.startswith("input_norm"):
            assert not weight.requires_grad
        else:
            assert weight.grad is not None
            assert weight.grad.abs().sum() > 0, name


def test_evaluation_is_deterministic_and_the_embedding_is_the_input_of_the_head() -> None:
    torch.manual_seed(0)
    model = Musicnn(n_mels=16, n_tags=3).eval()
    log_mel = torch.rand(3, 187, 16)
    with torch.inference_mode():
        logits = model(log_mel)
        assert torch.equal(model(log_mel), logits)
        assert torch.equal(model.head(model.embed(log_mel)), logits)
        assert torch.equal(model.backend(model.encode(log_mel)), model.embed(log_mel))
        torch.testing.assert_close(model(log_mel[1:2]), logits[1:2], rtol=0, atol=1e-5)


def test_too_few_mel_bands_are_refused() -> None:
    with pytest.raises(UsageError, match="musicnn n_mels is 2: its filters need at least 3 bands"):
        build_model("musicnn", {}, n_mels=2, n_tags=5)


def test_a_frozen_encoder_computes_each_clip_once_and_is_not_trained() -> None:
    torch.manual_seed(0)
    model = Musicnn(n_mels=16, n_tags=3)
    log_mel = torch.rand(4, 40, 16)
    with torch.inference_mode():
        expected = model.eval().encode(log_mel)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.freeze_encoder()
    heard: list[int] = []
    model.input_norm.register_forward_hook(lambda _module, inputs, _output: heard.append(len(inputs[0])))
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(log_mel[:2]), expected[:2], rtol=0, atol=1e-5)

    model.train()
    model(log_mel).square().sum().backward()  # what was remembered without gradients must not stop it
    with torch.inference_mode():
        torch.testing.assert_close(model.encode(log_mel), expected, rtol=0, atol=1e-5)
    assert heard == [2, 2]
    learned = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert {name.split(".")[0] for name in learned} == {"pooled_norm", "dense", "dense_norm", "head"}
    encoder = ("input_norm", "timbral", "temporal", "midend")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, before[name]) or not name.startswith(encoder), name
