"""Read training batches and validation tracks from a features table, without an engine."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt
from torch import nn

from musictag.catalog.vocabulary import make_vocabulary, targets_by_track
from musictag.features.config import FeatureConfig
from musictag.features.reader import read_tracks
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches
from musictag.training.batches import Batch
from musictag.training.checkpoints import Scored
from musictag.training.config import TrainingConfig

Targets = Mapping[str, npt.NDArray[np.bool_]]
"""Targets (K,) by track_id."""
Fold = Mapping[str, Targets]
"""Targets by split: the `train` tracks of a network, and its `validation` tracks, which it does not learn."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """The labelled tracks of a features table, in one or more folds."""

    features_uri: str
    files: Mapping[str, Sequence[str]]
    """Files of the table with the tracks to read from each, in the table's order (`features.reader.group_by_file`)."""
    feature_config: FeatureConfig
    vocabulary: tuple[str, ...]
    """The K tags, in the order of the targets."""
    folds: Sequence[Fold]

    def draw_batches(
        self, epoch: int, *, fold: int, training: TrainingConfig, rank: int = 0, n_workers: int = 1
    ) -> Iterator[Batch]:
        """Yield the batches of one worker in one epoch, see `batches.draw_batches`."""
        targets = self.folds[fold]["train"]
        track_ids = batches.shard(targets, rank, n_workers, seed=[training.seed, epoch])
        rows = self._rows(targets, track_ids)
        of_worker = training.per_worker(n_workers)
        return batches.draw_batches(rows, self.feature_config, of_worker, epoch=epoch, rank=rank)

    def count_train_batches(self, fold: int, training: TrainingConfig, *, n_workers: int = 1) -> int:
        """Return the number of batches of each worker in one epoch."""
        return batches.count_batches(len(self.folds[fold]["train"]) // n_workers, training.per_worker(n_workers))

    def train_targets(self) -> Targets:
        """Return the targets of the tracks that train a network in any fold."""
        return {track_id: targets for fold in self.folds for track_id, targets in fold["train"].items()}

    def score_validation(self, fold: int, model: nn.Module, *, rank: int = 0, n_workers: int = 1) -> Scored:
        """Score the share of one worker of the validation tracks of a fold.

        Shares follow each other in the table's order, so that few files are opened by two workers.
        """
        targets = self.folds[fold]["validation"]
        track_ids = [track_id for in_file in self.files.values() for track_id in in_file if track_id in targets]
        begin, end = (len(track_ids) * n // n_workers for n in (rank, rank + 1))
        track_ids, truth, scores = score_labelled(model, self._rows(targets, track_ids[begin:end]), self.feature_config)
        shape = len(track_ids), len(self.vocabulary)  # also of an empty share
        return track_ids, truth.reshape(shape).astype(np.bool_), scores.reshape(shape)

    def _rows(self, targets: Targets, track_ids: Collection[str]) -> Iterator[batches.Row]:
        """Yield the rows of some tracks with their targets, in the table's order."""
        chosen = frozenset(track_ids)
        files = {path: [track_id for track_id in in_file if track_id in chosen] for path, in_file in self.files.items()}
        files = {path: wanted for path, wanted in files.items() if wanted}
        return batches.labelled_rows(read_tracks(self.features_uri, SCORE_COLUMNS, files), targets)


def make_dataset(
    folds: Sequence[Mapping[str, Mapping[str, Sequence[str]]]],
    tags: Sequence[str] | None,
    *,
    features_uri: str,
    files: Mapping[str, Sequence[str]],
    feature_config: FeatureConfig,
) -> Dataset:
    """Encode the tags of tracks as targets.

    Args:
        folds: tags by track_id and split, of each fold, see `catalog.splits.folds`.
        tags: the vocabulary; None takes all tags of train tracks.
        features_uri: table that holds the tracks.
        files: its files that hold the tracks, see `features.reader.group_by_file`; they may hold other tracks as well.
        feature_config: settings of its features.

    Raises `VocabularyError` as `make_vocabulary` does.
    """
    vocabulary = make_vocabulary([track_tags for fold in folds for track_tags in fold["train"].values()], tags)
    return Dataset(
        features_uri=features_uri,
        files=files,
        feature_config=feature_config,
        vocabulary=vocabulary,
        folds=[{split: targets_by_track(tracks, vocabulary) for split, tracks in fold.items()} for fold in folds],
    )
