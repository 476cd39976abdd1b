"""The fingerprint of a training: equal for two attempts at the same model."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import musictag
from musictag.training.config import TrainingConfig
from musictag.training.dataset import Dataset
from musictag.training.finetune import Network


def fingerprint(
    network: Network, dataset: Dataset, training: TrainingConfig, min_precision: Mapping[str, float],
    row_versions: Mapping[str, str],
) -> str:  # fmt: skip
    """Return a digest of all that decides the model: settings, initial weights, labels, folds and training rows.

    The number of workers, their devices, and the places of catalog and features are no part of it, nor are other rows
    of the features table: an attempt on a smaller cluster, a night later, can continue an interrupted one.

    Args:
        network: the network before training.
        dataset: its labelled tracks.
        training: the training settings.
        min_precision: minimum precision by tag.
        row_versions: a text for each track that changes when its features do, see `catalog.splits.Labels`.
    """
    digest = hashlib.sha256()
    settings = {
        "musictag": musictag.__version__,
        "architecture": network.architecture,
        "params": network.params,
        "feature_hash": network.feature_config.feature_hash,
        "vocabulary": network.vocabulary,
        "head_bias": network.head_bias,
        "training": dataclasses.asdict(training),
        "min_precision": dict(min_precision),
    }
    digest.update(json.dumps(settings, sort_keys=True).encode())
    for name, weight in sorted((network.weights or {}).items()):
        digest.update(f"\n{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.contiguous().numpy().tobytes())
    for number, fold in enumerate(dataset.folds):
        for split, targets in sorted(fold.items()):
            for track_id, of_track in sorted(targets.items()):
                row = [number, split, track_id, row_versions[track_id], of_track.tolist()]
                digest.update(f"\n{json.dumps(row)}".encode())
    return digest.hexdigest()
