import dataclasses

import numpy as np
import pytest
import torch

from musictag.errors import VocabularyError
from musictag.features.table import SCHEMA, open_features
from musictag.storage import commits, tables
from musictag.training import batches
from musictag.training.config import TrainingConfig
from musictag.training.dataset import Dataset, make_dataset
from sample_tables import find_files
from small import CONFIG, small_model, track

TAGS = {"t1": ["drums"], "t2": ["piano", "sad"], "t3": ["sad"], "t4": ["drums"], "t5": ["piano"]}
FOLDS = [
    {"train": {name: TAGS[name] for name in ("t1", "t2", "t3")}, "validation": {"t5": TAGS["t5"], "t4": TAGS["t4"]}},
    {"train": {name: TAGS[name] for name in ("t3", "t4", "t5")}, "validation": {"t1": TAGS["t1"], "t2": TAGS["t2"]}},
]
TRAINING = TrainingConfig(clips_per_track=2, batch_size=2)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    uri = str(tmp_path_factory.mktemp("features"))
    open_features(uri, CONFIG, None)
    rows = [{**track(3, seed), "n_clips": 3, "feature_hash": CONFIG.feature_hash} for seed in range(1, 7)]
    commits.append_rows(uri, SCHEMA, ({name: row.get(name) for name in SCHEMA.names} for row in rows))
    files = find_files(uri, TAGS)
    return make_dataset(FOLDS, None, features_uri=uri, files=files, feature_config=CONFIG)


def test_dataset_encodes_the_tags_of_train_tracks(dataset: Dataset) -> None:
    assert dataset.vocabulary == ("drums", "piano", "sad")
    assert dataset.folds[0]["train"]["t2"].tolist() == [False, True, True]
    assert dataset.folds[1]["validation"]["t1"].tolist() == [True, False, False]
    assert set(dataset.train_targets()) == {"t1", "t2", "t3", "t4", "t5"}


def test_unknown_tag_is_refused(dataset: Dataset) -> None:
    with pytest.raises(VocabularyError, match="pianos"):
        make_dataset(FOLDS, ["pianos"], features_uri="", files={}, feature_config=CONFIG)


def test_number_of_batches_is_as_counted(dataset: Dataset) -> None:
    made = list(dataset.draw_batches(0, fold=0, training=TRAINING))
    assert len(made) == dataset.count_train_batches(0, TRAINING) == 3
    assert sum(len(batch.targets) for batch in made) == 6
    pair = dataclasses.replace(TRAINING, batch_size=4)
    assert dataset.count_train_batches(0, pair, n_workers=2) == 1


def test_workers_train_on_different_tracks(dataset: Dataset) -> None:
    seen, training = [], dataclasses.replace(TRAINING, batch_size=6)
    for rank in range(3):
        for batch in dataset.draw_batches(1, fold=0, training=training, rank=rank, n_workers=3):
            assert len(batch.targets) == 2  # a third of a batch
            seen += [tuple(row) for row in batch.targets.tolist()]
    assert sorted(seen) == sorted(2 * [(1, 0, 0), (0, 1, 1), (0, 0, 1)])


def test_batches_are_those_of_the_shard_in_table_order(dataset: Dataset) -> None:
    stored = tables.read_rows(
        dataset.features_uri, ("track_id", "clips", "n_clips", "start_s", "duration_s"), {"t1", "t2", "t3"}
    )
    rows = batches.labelled_rows(stored, dataset.folds[0]["train"])
    expected = batches.draw_batches(rows, CONFIG, TRAINING, epoch=2)
    for batch, other in zip(dataset.draw_batches(2, fold=0, training=TRAINING), expected, strict=True):
        assert torch.equal(batch.log_mel, other.log_mel)
        assert torch.equal(batch.targets, other.targets)


def test_validation_tracks_of_a_fold_are_scored(dataset: Dataset) -> None:
    track_ids, targets, scores = dataset.score_validation(0, small_model())
    assert sorted(track_ids) == ["t4", "t5"]
    np.testing.assert_array_equal(targets, [dataset.folds[0]["validation"][track_id] for track_id in track_ids])
    assert scores.shape == (2, 3)


@pytest.mark.parametrize("n_workers", [2, 3])
def test_workers_score_shares_of_the_validation_tracks(dataset: Dataset, n_workers: int) -> None:
    model = small_model()
    whole_ids, whole_targets, whole_scores = dataset.score_validation(0, model)
    shares = [dataset.score_validation(0, model, rank=rank, n_workers=n_workers) for rank in range(n_workers)]
    assert [track_id for track_ids, _, _ in shares for track_id in track_ids] == whole_ids
    targets = np.concatenate([targets for _, targets, _ in shares])
    assert targets.dtype == np.bool_  # also where a worker has no track
    np.testing.assert_array_equal(targets, whole_targets)
    np.testing.assert_allclose(np.concatenate([scores for _, _, scores in shares]), whole_scores, rtol=1e-5)
