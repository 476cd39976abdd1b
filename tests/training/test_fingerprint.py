"""The fingerprint changes with what decides a model, and with nothing else."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from musictag.features.config import FeatureConfig
from musictag.training.config import TrainingConfig
from musictag.training.dataset import Dataset
from musictag.training.finetune import Network
from musictag.training.fingerprint import fingerprint

CONFIG = FeatureConfig()
VERSIONS = {"a": "1", "b": "2"}


def network(**changed: Any) -> Network:
    fields: dict[str, Any] = {
        "architecture": "cnn",
        "params": {"hidden": 16},
        "feature_config": CONFIG,
        "vocabulary": ("calm", "sad"),
        "weights": {"body": torch.tensor([1.0, 2.0])},
        "head_bias": (0.5, -0.5),
    }
    return Network(**fields | changed)


def dataset(*, uri: str = "features", a: tuple[bool, bool] = (True, False), swapped: bool = False) -> Dataset:
    targets = {"a": np.array(a), "b": np.array([True, True])}
    train, validation = ("b", "a") if swapped else ("a", "b")
    return Dataset(
        features_uri=uri,
        files={f"{uri}.parquet": ["a", "b"]},
        feature_config=CONFIG,
        vocabulary=("calm", "sad"),
        folds=[{"train": {train: targets[train]}, "validation": {validation: targets[validation]}}],
    )


def default() -> str:
    return fingerprint(network(), dataset(), TrainingConfig(), {"calm": 0.9}, VERSIONS)


def test_same_training_elsewhere_has_the_same_fingerprint() -> None:
    assert len(default()) == 64
    other_rows = VERSIONS | {"of no split": "3"}
    assert fingerprint(network(), dataset(uri="s3://b/f"), TrainingConfig(), {"calm": 0.9}, other_rows) == default()


@pytest.mark.parametrize(
    "changed",
    [
        {"architecture": "resnet"},
        {"params": {"hidden": 17}},
        {"feature_config": dataclasses.replace(CONFIG, n_mels=80)},
        {"vocabulary": ("calm", "slow")},
        {"weights": {"body": torch.tensor([1.0, 2.5])}},
        {"weights": {"body": torch.tensor([[1.0, 2.0]])}},
        {"weights": None},
        {"head_bias": (0.5, -0.4)},
    ],
)
def test_other_network_has_another(changed: dict[str, Any]) -> None:
    other = fingerprint(network(**changed), dataset(), TrainingConfig(), {"calm": 0.9}, VERSIONS)
    assert other != default()


@pytest.mark.parametrize("changed", [{"seed": 1}, {"epochs": 31}, {"learning_rate": 0.002}, {"crop": True}])
def test_other_settings_have_another(changed: dict[str, Any]) -> None:
    other = fingerprint(network(), dataset(), TrainingConfig(**changed), {"calm": 0.9}, VERSIONS)
    assert other != default()


def test_other_labels_splits_rows_and_precisions_have_another() -> None:
    training = TrainingConfig()
    others = [
        fingerprint(network(), dataset(a=(True, True)), training, {"calm": 0.9}, VERSIONS),
        fingerprint(network(), dataset(swapped=True), training, {"calm": 0.9}, VERSIONS),
        fingerprint(network(), dataset(), training, {"calm": 0.9}, {"a": "1", "b": "3"}),
        fingerprint(network(), dataset(), training, {"calm": 0.8}, VERSIONS),
        default(),
    ]
    assert len(set(others)) == len(others)
