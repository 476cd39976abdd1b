import pytest
import torch

from musictag.errors import UsageError
from musictag.models.architectures import build_model
from musictag.models.cnn import CNN


@pytest.mark.parametrize(("n_frames", "n_mels"), [(187, 96), (186, 95), (20, 8), (3, 2)])
def test_clips_of_any_size_give_one_logit_per_tag(n_frames: int, n_mels: int) -> None:
    model = build_model("cnn", {}, n_mels=n_mels, n_tags=7)
    logits = model(torch.rand(3, n_frames, n_mels))
    assert logits.shape == (3, 7)
    assert logits.dtype == torch.float32


def test_a_clip_scores_the_same_alone_and_in_a_batch() -> None:
    torch.manual_seed(0)
    model = CNN(n_mels=96, n_tags=5).eval()
    log_mel = torch.rand(4, 187, 96)
    torch.testing.assert_close(model(log_mel)[2:3], model(log_mel[2:3]), rtol=0, atol=1e-5)


def test_every_weight_has_a_gradient() -> None:
    torch.manual_seed(0)
    model = CNN(n_mels=16, n_tags=3, channels=(4, 8), hidden=16)
    model(torch.rand(8, 24, 16)).square().sum().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None
        assert weight.grad.abs().sum() > 0, name


def test_logits_of_a_pitch_and_its_octave_differ() -> None:
    # Global pooling over frequency would make these two equal.
    torch.manual_seed(0)
    model = CNN(n_mels=64, n_tags=4, dropout=0.0)
    log_mel = torch.zeros(2, 40, 64)
    log_mel[0, :, 16], log_mel[1, :, 48] = 1.0, 1.0
    low, high = model(log_mel)
    assert (low - high).abs().max() > 0.1


@pytest.mark.parametrize(
    ("params", "complaint"),
    [
        ({"depth": 3}, "no parameter depth; it has channels, dropout, hidden"),
        ({"n_tags": 3}, "no parameter n_tags"),
        ({"channels": ()}, r"channels is \(\): positive integers"),
        ({"channels": (8, 0)}, r"channels is \(8, 0\)"),
        ({"channels": "wide"}, "channels is wide"),
        ({"channels": 8}, "channels is 8"),
        ({"hidden": 0}, r"hidden is \[0\]"),
        ({"dropout": 1.0}, r"dropout is 1\.0: it must be at least 0 and below 1"),
        ({"dropout": "half"}, "dropout is half"),
    ],
)
def test_invalid_params_are_named(params: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        build_model("cnn", params, n_mels=96, n_tags=2)
