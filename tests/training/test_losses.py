import math

import numpy as np
import pytest
import torch

from musictag.training.losses import FOCUS, FOCUS_NEGATIVE, FOCUS_POSITIVE, LOSSES, MARGIN, class_weights, mean_loss

LOGITS = torch.tensor([[-4.0, -0.7, 0.0], [0.3, 2.0, 5.0]])
TRUTH = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
BLENDED = torch.tensor([[0.25, 0.5, 1.0], [0.0, 0.9, 0.7]])


def binary(logit, target):
    score = 1 / (1 + math.exp(-logit))
    return -target * math.log(score) - (1 - target) * math.log(1 - score)


def focal(logit, target):
    score = 1 / (1 + math.exp(-logit))
    return (target * (1 - score) + (1 - target) * score) ** FOCUS * binary(logit, target)


def asymmetric(logit, target):
    score = 1 / (1 + math.exp(-logit))
    shifted = max(score - MARGIN, 0)
    positive = (1 - score) ** FOCUS_POSITIVE * math.log(score)
    negative = shifted**FOCUS_NEGATIVE * math.log(1 - shifted)
    return -target * positive - (1 - target) * negative


BY_HAND = {"bce": binary, "focal": focal, "asymmetric": asymmetric}


@pytest.mark.parametrize("targets", [TRUTH, BLENDED], ids=["truth", "blended"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_formula_decision_by_decision(name, targets):
    expected = [
        [BY_HAND[name](*decision) for decision in zip(*clip, strict=True)]
        for clip in zip(LOGITS.tolist(), targets.tolist(), strict=True)
    ]
    torch.testing.assert_close(LOSSES[name](LOGITS, targets), torch.tensor(expected), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("target", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_are_finite_however_sure_the_network_is(name, target):
    logits = torch.tensor([[-100.0, -50.0, -20.0, 0.0, 20.0, 50.0, 100.0]], requires_grad=True)
    loss = LOSSES[name](logits, torch.full_like(logits, target))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert (loss >= 0).all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_mistake_is_expensive_and_pulls_the_right_way(name):
    logits = torch.tensor([[-3.0, 3.0]], requires_grad=True)
    wrong = LOSSES[name](logits, torch.tensor([[1.0, 0.0]]))
    right = LOSSES[name](logits, torch.tensor([[0.0, 1.0]]))
    assert (wrong > 10 * right).all()
    wrong.sum().backward()
    assert logits.grad[0, 0] < 0 < logits.grad[0, 1]


def test_negatives_under_the_margin_cost_nothing_and_pull_nothing():
    at_margin = math.log(MARGIN / (1 - MARGIN))
    logits = torch.tensor([[-50.0, -5.0, at_margin - 0.01, at_margin + 0.5]], requires_grad=True)
    loss = LOSSES["asymmetric"](logits, torch.zeros(1, 4))
    loss.sum().backward()
    assert loss[0, :3].tolist() == logits.grad[0, :3].tolist() == [0, 0, 0]
    assert loss[0, 3] > 0
    assert (LOSSES["asymmetric"](logits, torch.ones(1, 4)) > 0).all()


def test_the_default_is_torchs_own_cross_entropy():
    expected = torch.nn.functional.binary_cross_entropy_with_logits(LOGITS, BLENDED)
    assert torch.equal(mean_loss(LOGITS, BLENDED), expected)
    assert torch.equal(mean_loss(LOGITS, BLENDED, weights=torch.ones(3)), expected)


def test_a_name_chooses_the_loss():
    for name, loss in LOSSES.items():
        torch.testing.assert_close(mean_loss(LOGITS, TRUTH, name=name), loss(LOGITS, TRUTH).mean())


def test_smoothing_moves_targets_towards_one_half():
    # 0.2 of the way: 0 becomes 0.1, 1 becomes 0.9.
    expected = LOSSES["bce"](LOGITS, torch.tensor([[0.1, 0.9, 0.9], [0.1, 0.1, 0.9]])).mean()
    torch.testing.assert_close(mean_loss(LOGITS, TRUTH, smoothing=0.2), expected)


def test_weights_are_those_of_positives():
    weights = torch.tensor([7.0, 3.0, 0.5])
    parts = LOSSES["bce"](LOGITS, TRUTH) * torch.tensor([[1, 3, 0.5], [1, 1, 0.5]])
    torch.testing.assert_close(mean_loss(LOGITS, TRUTH, weights=weights), parts.mean())
    half = LOSSES["bce"](LOGITS, torch.full((2, 3), 0.5)) * torch.tensor([4, 2, 0.75])
    torch.testing.assert_close(mean_loss(LOGITS, torch.full((2, 3), 0.5), weights=weights), half.mean())


def test_weights_balance_positives_and_negatives():
    shares = [0.5, 0.2, 0.75]
    weights = class_weights(shares, 1.0)
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, torch.tensor([1.0, 4.0, 1 / 3]))
    np.testing.assert_allclose(weights.numpy() * shares, 1 - np.array(shares), rtol=1e-6)
    torch.testing.assert_close(class_weights(shares, 0.5), torch.tensor([1.0, 2.0, (1 / 3) ** 0.5]))
    assert class_weights(shares, 0.0).tolist() == [1, 1, 1]


def test_tags_that_no_track_has_or_all_have_get_finite_weights():
    torch.testing.assert_close(class_weights([0.0, 1.0], 1.0), torch.tensor([999.0, 1 / 999]))
    assert class_weights([0.0, 1.0], 0.0).tolist() == [1, 1]
