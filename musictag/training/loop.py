"""Train one network on batches, without an engine.

Ray Train calls `fit` in each worker, with a model in DistributedDataParallel; a notebook can call it directly. Each
epoch seeds torch again, so that a resumed run gives the same results as an uninterrupted one.

The network has two parts with their own learning rates: the `head`, its last linear layer (in an ensemble, that of each
member), and the body, all other layers, which may be pretrained.
"""

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from musictag.errors import TrainingError
from musictag.training import distributed
from musictag.training.checkpoints import TrainingState
from musictag.training.config import TrainingConfig, body_rate_at, learning_rate_at
from musictag.training.losses import Loss, binary_cross_entropy

# Steps between two checks of the losses: each check waits for the GPU.
CHECK_STEPS = 50
# Far above the gradient norm of a normal step: only the gradient of an extreme batch is clipped.
MAX_GRADIENT_NORM = 5.0


def is_head(name: str) -> bool:
    """Return whether this is the name of a weight of a head."""
    return "head" in name.split(".")


def fit(
    model: nn.Module,
    config: TrainingConfig,
    *,
    train_batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    steps_per_epoch: int,
    validate: Callable[[nn.Module], Mapping[str, float]],
    on_epoch: Callable[[TrainingState], None],
    loss: Loss = binary_cross_entropy,
    state: TrainingState | None = None,
) -> TrainingState:
    """Train for `epochs`, or until `val_loss` has not improved for `patience` epochs; the model gets the best weights.

    Uses AdamW with clipped gradients, and bfloat16 if the model is on a GPU. Workers that train together must have the
    same number of batches, and `validate` must return the same numbers on all of them. Statistics of batch
    normalization are those of the first worker.

    Args:
        model: maps log_mel (B, T, M) to logits (B, K); on the device to train on, bare or in DistributedDataParallel.
        config: training settings.
        train_batches: returns the batches of an epoch (from 0), log_mel (B, T, M) and targets (B, K), float32, see
            `loader.loading`. Runs are reproducible if it returns the same batches for the same epoch.
        steps_per_epoch: number of these batches, used by the learning rate schedule.
        validate: returns the metrics of the bare model, which is in evaluation mode; `val_loss` must be among them.
        on_epoch: called after each epoch, to save and to report; `state.history[-1]` holds the epoch's metrics.
        loss: function of logits and targets (B, K).
        state: state of an earlier run to continue; None starts from the model's weights.

    Raises:
        TrainingError: there are no batches, a loss is not finite, or the state belongs to another model. After a loss
            that is not finite, the model has the weights of the last finished epoch.
    """
    bare = model.module if isinstance(model, DistributedDataParallel) else model
    rank = torch.distributed.get_rank() if model is not bare else 0
    if steps_per_epoch < 1:
        raise TrainingError("there are no training batches: no track is in the train split, or none has features")
    optimizer = torch.optim.AdamW(
        _parameter_groups(bare),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        fused=True if next(bare.parameters()).is_cuda else None,
    )
    if state is None:
        weights = copy.deepcopy(bare.state_dict())
        state = TrainingState(weights=weights, best_weights=weights, optimizer=copy.deepcopy(optimizer.state_dict()))
    else:
        _restore(bare, optimizer, state)

    while state.epoch < config.epochs and state.epochs_since_best < config.patience:
        started = time.perf_counter()
        _seed_torch(config.seed, state.epoch, rank)
        try:
            total_loss, n_clips = _train_epoch(
                model, optimizer, config, loss, train_batches(state.epoch), state.epoch, steps_per_epoch
            )
        except TrainingError:
            bare.load_state_dict(state.weights)
            raise
        if model is not bare:
            device = next(bare.parameters()).device
            total_loss, n_clips = distributed.sum_over_workers(total_loss, n_clips, device=device)
            distributed.copy_buffers(bare)
        trained = time.perf_counter()
        bare.eval()
        metrics = {
            "epoch": float(state.epoch + 1),
            "train_loss": total_loss / n_clips,
            **{name: float(number) for name, number in validate(bare).items()},
            "learning_rate": float(optimizer.param_groups[0]["lr"]),
            "clips_per_s": n_clips / (trained - started),
            "seconds": time.perf_counter() - started,
        }
        state = _next_state(state, bare, optimizer, metrics)
        on_epoch(state)

    bare.load_state_dict(state.best_weights)
    bare.eval()
    return state


def _parameter_groups(bare: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters of the head and those of the body, as groups of the optimizer."""
    named = list(bare.named_parameters())
    return [{"params": [weight for name, weight in named if is_head(name) is in_head]} for in_head in (True, False)]


def _seed_torch(seed: int, epoch: int, rank: int) -> None:
    """Seed torch's generator, which dropout uses; each worker gets other numbers."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0]))


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config: TrainingConfig,
    loss: Loss,
    batches: Iterable[tuple[Tensor, Tensor]],
    epoch: int,
    n_steps: int,
) -> tuple[float, float]:
    """Train on the batches of one epoch; return the sum of the losses of all clips, and the number of clips."""
    model.train()
    if config.frozen_norm:
        _freeze_norm(model)
    device = next(model.parameters()).device
    head_only = epoch < config.head_epochs or config.body_rate == 0
    values: list[float] = []
    pending: list[Tensor] = []  # losses that are still on the device
    sizes: list[int] = []
    for step, (log_mel, targets) in enumerate(batches):
        progress = (epoch * n_steps + step + 1) / (config.epochs * n_steps)
        for group, rate_at in zip(optimizer.param_groups, (learning_rate_at, body_rate_at), strict=True):
            group["lr"] = rate_at(progress, config)
        pending.append(_train_step(model, optimizer, loss, log_mel.to(device), targets.to(device), head_only=head_only))
        sizes.append(len(targets))
        if len(pending) == CHECK_STEPS:
            values += _finite_losses(pending, epoch, len(values), config)
            pending.clear()
    if not sizes:
        raise TrainingError(f"epoch {epoch + 1} had no training batches; {n_steps} were expected")
    if pending:
        values += _finite_losses(pending, epoch, len(values), config)
    return sum(value * size for value, size in zip(values, sizes, strict=True)), sum(sizes)


def _finite_losses(losses: Sequence[Tensor], epoch: int, n_before: int, config: TrainingConfig) -> list[float]:
    """Return the losses after the first `n_before` of an epoch. Raises `TrainingError` for one that is not finite."""
    values: list[float] = torch.stack(list(losses)).tolist()
    for step, value in enumerate(values, start=n_before + 1):
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in epoch {epoch + 1}, step {step}: use a lower learning rate than "
                f"{config.learning_rate}; if that does not help, look for features that are not finite"
            )
    return values


def _freeze_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm):
            module.eval()


def _train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    log_mel: Tensor,
    targets: Tensor,
    *,
    head_only: bool,
) -> Tensor:
    """Take one step of the optimizer; return the loss before it, a scalar on the device: nothing waits for it.

    With `head_only`, gradients of the body are not computed. Under DistributedDataParallel, which waits for all
    gradients, they are computed and dropped.
    """
    head, body = (group["params"] for group in optimizer.param_groups)
    with torch.autocast(log_mel.device.type, dtype=torch.bfloat16, enabled=log_mel.is_cuda):
        logits = model(log_mel)
    batch_loss = loss(logits.float(), targets)
    optimizer.zero_grad()
    is_distributed = isinstance(model, DistributedDataParallel)
    batch_loss.backward(inputs=head if head_only and not is_distributed else None)  # type: ignore[no-untyped-call]
    if head_only:
        for weight in body:
            weight.grad = None  # the optimizer skips such weights: no step, no decay, no moments
    nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
    optimizer.step()
    return batch_loss.detach()


def _next_state(
    state: TrainingState, bare: nn.Module, optimizer: torch.optim.Optimizer, metrics: dict[str, float]
) -> TrainingState:
    """Return the state after one more epoch, with copies of all weights."""
    val_loss = metrics["val_loss"]
    if not math.isfinite(val_loss):
        raise TrainingError(f"val_loss is {val_loss} after epoch {state.epoch + 1}: check the validation tracks")
    weights = copy.deepcopy(bare.state_dict())
    is_better = val_loss < state.best_val_loss
    return TrainingState(
        epoch=state.epoch + 1,
        weights=weights,
        best_weights=weights if is_better else state.best_weights,
        best_val_loss=val_loss if is_better else state.best_val_loss,
        epochs_since_best=0 if is_better else state.epochs_since_best + 1,
        optimizer=copy.deepcopy(optimizer.state_dict()),
        history=[*state.history, metrics],
    )


def _restore(bare: nn.Module, optimizer: torch.optim.Optimizer, state: TrainingState) -> None:
    """Load a state into the model and the optimizer."""
    try:
        bare.load_state_dict(state.weights)
        optimizer.load_state_dict(copy.deepcopy(state.optimizer))  # the optimizer keeps and changes what it loads
    except (RuntimeError, ValueError) as error:
        raise TrainingError(f"the training state belongs to another model: {error}; start again without it") from error
