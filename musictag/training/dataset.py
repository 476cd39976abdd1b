"""Read training batches and validation tracks from a features table, without an engine."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import Tensor, nn

from musictag.catalog.vocabulary import make_vocabulary, targets_by_track
from musictag.features.config import FeatureConfig
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches
from musictag.training.config import TrainingConfig

Targets = Mapping[str, npt.NDArray[np.bool_]]
"""Targets (K,) by track_id."""
Fold = Mapping[str, Targets]
"""Targets by split: the `train` tracks of a network, and its `validation` tracks, which it does not learn."""
Scored = tuple[list[str], npt.NDArray[np.bool_], npt.NDArray[np.float32]]
"""Track ids, targets (N, K) and joined scores (N, K)."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The labelled tracks of one version of a features table, in one or more folds."""

    features_uri: str
    features_version: int
    feature_config: FeatureConfig
    vocabulary: tuple[str, ...]
    """The K tags, in the order of the targets."""
    folds: Sequence[Fold]

    def train_batches(
        self, fold: int, training: TrainingConfig, *, epoch: int, rank: int = 0, n_workers: int = 1
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of one worker in one epoch, see `batches.train_batches`."""
        targets = self.folds[fold]["train"]
        track_ids = batches.shard(targets, rank, n_workers, seed=[training.seed, epoch])
        rows = self._rows({track_id: targets[track_id] for track_id in track_ids})
        return batches.train_batches(rows, self.feature_config, training, epoch=epoch, rank=rank)

    def count_train_batches(self, fold: int, training: TrainingConfig, *, n_workers: int = 1) -> int:
        """Return the number of batches of each worker in one epoch."""
        return batches.count_batches(len(self.folds[fold]["train"]) // n_workers, training)

    def train_targets(self) -> Targets:
        """Return the targets of the tracks that train a network in any fold."""
        return {track_id: targets for fold in self.folds for track_id, targets in fold["train"].items()}

    def score_validation(self, fold: int, model: nn.Module) -> Scored:
        """Score the validation tracks of a fold."""
        return score_labelled(model, self._rows(self.folds[fold]["validation"]), self.feature_config)

    def _rows(self, targets: Targets) -> Iterator[batches.Row]:
        """Yield the rows of some tracks with their targets, in the table's order."""
        rows = tables.read_rows(self.features_uri, SCORE_COLUMNS, targets, self.features_version)
        return batches.labelled_rows(rows, targets)


def make_dataset(
    folds: Sequence[Mapping[str, Mapping[str, Sequence[str]]]],
    tags: Sequence[str] | None,
    *,
    features_uri: str,
    features_version: int,
    feature_config: FeatureConfig,
) -> Dataset:
    """Encode the tags of tracks as targets.

    Args:
        folds: tags by track_id and split, of each fold, see `catalog.splits.folds`.
        tags: the vocabulary; None takes all tags of train tracks.
        features_uri: table that holds the tracks.
        features_version: its version to read.
        feature_config: settings of its features.

    Raises `VocabularyError` as `make_vocabulary` does.
    """
    vocabulary = make_vocabulary([track_tags for fold in folds for track_tags in fold["train"].values()], tags)
    return Dataset(
        features_uri=features_uri,
        features_version=features_version,
        feature_config=feature_config,
        vocabulary=vocabulary,
        folds=[{split: targets_by_track(tracks, vocabulary) for split, tracks in fold.items()} for fold in folds],
    )
