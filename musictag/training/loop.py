"""The training loop: a model, batches and a validation function in; the best weights and the history out.

It knows no engine and no table. Ray Train runs it in each worker, with the model wrapped for data-parallel training by
the caller; a notebook runs it as it is. Each epoch seeds torch anew, so that a run resumed after an epoch goes on
exactly as if it had never stopped.

Two parts of the network learn apart: the `head`, its last linear layer (or those of an ensemble's members), and the
body, all the rest, which may have learned from other music already.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from musictag.errors import TrainingError
from musictag.training.checkpoints import TrainingState
from musictag.training.config import TrainingConfig, body_rate_at, learning_rate_at
from musictag.training.losses import Loss, mean_loss

# Far above the gradient norm of a healthy step: it only takes the edge off a batch that would throw the model away.
MAX_GRADIENT_NORM = 5.0
# At first the average forgets faster, lest a short training end with the weights that it began with.
AVERAGING_START = 10


def is_head(name: str) -> bool:
    """Whether a weight of this name is the head's, or one of an ensemble's heads'."""
    return "head" in name.split(".")


def fit(
    model: nn.Module,
    config: TrainingConfig,
    *,
    train_batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    steps_per_epoch: int,
    validate: Callable[[nn.Module], Mapping[str, float]],
    on_epoch: Callable[[TrainingState], None],
    loss: Loss = mean_loss,
    state: TrainingState | None = None,
) -> TrainingState:
    """Train until the epochs or the patience are used up; the model then holds the best weights.

    AdamW, clipped gradients; bfloat16 where the model lies on a GPU. Workers that train together must each have as many
    batches as the others, and `validate` must give all of them the same numbers.
    While the head learns alone, the body's gradients are not computed; in DistributedDataParallel, which waits for all
    of them, they are, but are not used.

    Args:
        model: log_mel (B, T, M) to logits (B, K), on the device to train on, bare or in DistributedDataParallel.
        config: how to train.
        train_batches: epoch (from 0) to its batches, (B, T, M) and (B, K) float32; for equal results it must give the
            same ones for the same epoch.
        steps_per_epoch: how many batches that is; it places each step on the learning rate's schedule.
        validate: bare model in evaluation mode to metrics, with `val_loss` among them.
        on_epoch: called after each epoch, to save and to report; the epoch's metrics are `state.history[-1]`.
        loss: logits and targets (B, K) to a number; binary cross-entropy, if nothing else is said.
        state: where an earlier run stopped; None starts from the model's weights.

    Raises:
        TrainingError: no batches, a loss that is not finite, or a state of another model.
    """
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    rank = torch.distributed.get_rank() if model is not bare else 0  # workers drop out other numbers
    device = next(bare.parameters()).device
    if steps_per_epoch < 1:
        raise TrainingError("there are no training batches: no track is in the train split, or none has features")
    optimizer = torch.optim.AdamW(_groups(bare), lr=config.learning_rate, weight_decay=config.weight_decay)
    if state is None:
        weights = copy.deepcopy(bare.state_dict())
        state = TrainingState(weights=weights, averaged=weights, best_weights=weights,
                              optimizer=copy.deepcopy(optimizer.state_dict()))  # fmt: skip
    else:
        _restore(bare, optimizer, state)
    judged = bare
    if config.averaging:
        judged = copy.deepcopy(bare)
        judged.load_state_dict(state.averaged)

    while state.epoch < config.epochs and state.epochs_since_best < config.patience:
        started = time.perf_counter()
        torch.manual_seed(int(np.random.SeedSequence([config.seed, state.epoch, rank]).generate_state(1)[0]))
        model.train()
        if config.frozen_norm:
            _freeze_norm(bare)
        head_alone = state.epoch < config.head_epochs or config.body_rate == 0
        total_loss, n_clips = 0.0, 0
        for step, (log_mel, targets) in enumerate(train_batches(state.epoch)):
            progress = (state.epoch * steps_per_epoch + step + 1) / (config.epochs * steps_per_epoch)
            for group, rate_at in zip(optimizer.param_groups, (learning_rate_at, body_rate_at), strict=True):
                group["lr"] = rate_at(progress, config, state.history)
            value = _step(model, optimizer, loss, log_mel.to(device), targets.to(device), head_alone=head_alone)
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} in epoch {state.epoch + 1}, step {step + 1}: use a lower learning rate than "
                    f"{config.learning_rate}; if that does not help, look for features that are not finite"
                )
            if judged is not bare:
                n_steps = state.epoch * steps_per_epoch + step + 1
                _average(judged, bare, min(config.averaging, n_steps / (n_steps + AVERAGING_START)))
            total_loss += value * len(targets)
            n_clips += len(targets)
        if not n_clips:
            raise TrainingError(f"epoch {state.epoch + 1} had no training batches, {steps_per_epoch} were announced")
        trained = time.perf_counter()

        judged.eval()
        metrics = {
            "epoch": float(state.epoch + 1),
            "train_loss": total_loss / n_clips,
            **{name: float(number) for name, number in validate(judged).items()},
            "learning_rate": float(optimizer.param_groups[0]["lr"]),
            "clips_per_s": n_clips / (trained - started),
            "seconds": time.perf_counter() - started,
        }
        state = _next_state(state, bare, judged, optimizer, metrics)
        on_epoch(state)

    bare.load_state_dict(state.best_weights)
    bare.eval()
    return state


def _groups(bare: nn.Module) -> list[dict[str, Any]]:
    """The head's weights and the body's, as the optimizer takes them."""
    named = list(bare.named_parameters())
    return [{"params": [weight for name, weight in named if is_head(name) is of_head]} for of_head in (True, False)]


def _freeze_norm(bare: nn.Module) -> None:
    for module in bare.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.eval()


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    log_mel: Tensor,
    targets: Tensor,
    *,
    head_alone: bool,
) -> float:
    """One step of the optimizer; returns the loss before it. A loss that is not finite changes no weight."""
    head, body = (group["params"] for group in optimizer.param_groups)
    with torch.autocast(log_mel.device.type, dtype=torch.bfloat16, enabled=log_mel.is_cuda):
        logits = model(log_mel)
    mistake = loss(logits.float(), targets)
    value = mistake.item()
    if math.isfinite(value):
        optimizer.zero_grad()
        distributed = isinstance(model, DistributedDataParallel)
        mistake.backward(inputs=head if head_alone and not distributed else None)  # type: ignore[no-untyped-call]
        if head_alone:
            for weight in body:
                weight.grad = None  # the optimizer passes over it: no step, no decay, no moments
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
    return value


@torch.no_grad()
def _average(averaged: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the averaged weights, and statistics of batch norm, towards the model's; what counts is copied."""
    now = model.state_dict()
    for name, mean in averaged.state_dict().items():
        if mean.is_floating_point():
            mean.lerp_(now[name], 1 - decay)
        else:
            mean.copy_(now[name])


def _next_state(
    state: TrainingState,
    bare: nn.Module,
    judged: nn.Module,
    optimizer: torch.optim.Optimizer,
    metrics: dict[str, float],
) -> TrainingState:
    val_loss = metrics["val_loss"]
    if not math.isfinite(val_loss):
        raise TrainingError(f"val_loss is {val_loss} after epoch {state.epoch + 1}: look at the validation tracks")
    weights = copy.deepcopy(bare.state_dict())
    averaged = weights if judged is bare else copy.deepcopy(judged.state_dict())
    better = val_loss < state.best_val_loss
    return TrainingState(
        epoch=state.epoch + 1,
        weights=weights,
        averaged=averaged,
        best_weights=averaged if better else state.best_weights,
        best_val_loss=val_loss if better else state.best_val_loss,
        epochs_since_best=0 if better else state.epochs_since_best + 1,
        optimizer=copy.deepcopy(optimizer.state_dict()),
        history=[*state.history, metrics],
    )


def _restore(bare: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    try:
        bare.load_state_dict(state.weights)
        optimizer.load_state_dict(copy.deepcopy(state.optimizer))  # it keeps what it is given, and changes it
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the training state is of another model: {error}; start anew without it") from error
