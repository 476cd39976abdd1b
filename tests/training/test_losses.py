import math

import pytest
import torch

from musictag.training.losses import binary_cross_entropy

LOGITS = torch.tensor([[-4.0, -0.7, 0.0], [0.3, 2.0, 5.0]])
TARGETS = torch.tensor([[0.0, 1.0, 0.25], [0.0, 0.9, 1.0]])


def test_binary_cross_entropy_is_the_mean_over_clips_and_tags():
    expected = []
    for logit, target in zip(LOGITS.flatten().tolist(), TARGETS.flatten().tolist(), strict=True):
        score = 1 / (1 + math.exp(-logit))
        expected.append(-target * math.log(score) - (1 - target) * math.log(1 - score))
    loss = binary_cross_entropy(LOGITS, TARGETS)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-5)


@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
def test_extreme_logits_give_finite_losses_and_gradients(target):
    logits = torch.tensor([[-100.0, -50.0, -20.0, 0.0, 20.0, 50.0, 100.0]], requires_grad=True)
    loss = binary_cross_entropy(logits, torch.full_like(logits, target))
    loss.backward()
    assert loss.isfinite()
    assert loss >= 0
    assert logits.grad.isfinite().all()


def test_gradient_points_away_from_the_target():
    logits = torch.tensor([[-3.0, 3.0]], requires_grad=True)
    binary_cross_entropy(logits, torch.tensor([[1.0, 0.0]])).backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]
