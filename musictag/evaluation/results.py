"""The evaluation of one model on one split: truth and scores, stored as a table, and the figures computed from them."""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from musictag.catalog.vocabulary import targets_by_track
from musictag.errors import ModelError, StoreError
from musictag.evaluation import bootstrap, metrics

SCORES_FILE = "scores.parquet"
"""Name of the file with `to_table` among the artifacts of a model's run."""
METADATA_KEY = b"musictag.evaluation"
FIGURES = ("precision", "recall", "f1", "pr_auc", "roc_auc", "ece", "ece_raw")
WITH_INTERVAL = ("precision", "recall", "f1", "pr_auc", "roc_auc")
COLUMNS = ("track_id", "group", "targets", "scores", "raw_scores")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Truth and scores of N tracks and K tags. Raises `ModelError` if the fields do not fit together."""

    split: str
    """The split of the tracks."""
    track_ids: tuple[str, ...]
    """N unique ids."""
    groups: tuple[str, ...]
    """N: the artist of each track (see `catalog.splits.group_of`), the unit that the bootstrap draws."""
    vocabulary: tuple[str, ...]
    """K tags, sorted."""
    targets: NDArray[np.bool_]
    """(N, K): the truth."""
    scores: NDArray[np.float32]
    """(N, K): joined and calibrated scores, from 0 to 1."""
    raw_scores: NDArray[np.float32]
    """(N, K): joined scores before calibration."""
    thresholds: NDArray[np.float64]
    """(K,): fitted on validation tracks."""

    def __post_init__(self) -> None:
        shape = len(self.track_ids), len(self.vocabulary)
        if len(self.groups) != shape[0]:
            raise ModelError(f"Evaluation.groups has {len(self.groups)} entries for {shape[0]} tracks: one per track")
        for name in ("targets", "scores", "raw_scores", "thresholds"):
            expected = shape[1:] if name == "thresholds" else shape
            if (actual := getattr(self, name).shape) != expected:
                raise ModelError(
                    f"Evaluation.{name} has shape {actual}, but {shape[0]} tracks and {shape[1]} tags "
                    f"make {expected}: evaluate with the vocabulary that the model was trained on"
                )
        if len(set(self.track_ids)) < len(self.track_ids):
            raise ModelError("Evaluation.track_ids names a track twice: join the scores of its clips first")
        if not np.isfinite(self.scores).all():
            broken = [self.track_ids[n] for n in np.flatnonzero(~np.isfinite(self.scores).all(axis=1))]
            raise ModelError(
                f"the model's scores are not finite numbers for {len(broken)} tracks (first {broken[0]!r}): "
                "its weights or these tracks' features are broken"
            )

    @functools.cached_property
    def intervals(self) -> dict[str, NDArray[np.float64]]:
        """Low and high end of the 95 % intervals of `WITH_INTERVAL` by name, (2, K + 1) each; the macro value is last.

        They are NaN if all tracks are of one group; see `evaluation.bootstrap`.
        """
        drawn = bootstrap.figures(self.targets, self.scores, self.thresholds, bootstrap.draws(self.groups))
        return {
            name: bootstrap.interval(np.column_stack([drawn[name], bootstrap.macro(drawn[name])]))
            for name in WITH_INTERVAL
        }


def per_tag(evaluation: Evaluation) -> pa.Table:
    """Return a row per tag, in vocabulary order: tag, support, `FIGURES`, threshold.

    See `evaluation.metrics` for the figures. `ece` is the calibration error, `ece_raw` the one before calibration. Each
    of `WITH_INTERVAL` is followed by the ends of its 95 % interval, such as `f1_low` and `f1_high`.
    """
    figures = _figures(*_arrays(evaluation))
    columns: dict[str, Any] = {
        "tag": pa.array(evaluation.vocabulary, pa.string()),
        "support": metrics.support(evaluation.targets),
    }
    for name in FIGURES:
        columns[name] = figures[name]
        if name in WITH_INTERVAL:
            columns[f"{name}_low"], columns[f"{name}_high"] = evaluation.intervals[name][:, :-1]
    return pa.table({**columns, "threshold": evaluation.thresholds.astype(np.float64)})


def summary(evaluation: Evaluation) -> dict[str, float]:
    """Return the macro and micro values of `FIGURES`, the ends of their intervals (`macro_f1_low`, …), and n_tracks."""
    targets, scores, raw_scores, predicted = _arrays(evaluation)
    of_tags = _figures(targets, scores, raw_scores, predicted)
    pooled = metrics.pooled
    of_all = _figures(pooled(targets), pooled(scores), pooled(raw_scores), pooled(predicted))
    return {
        **{f"macro_{name}": metrics.macro(of_tags[name]) for name in FIGURES},
        **{f"micro_{name}": float(of_all[name][0]) for name in FIGURES},
        **{
            f"macro_{name}_{end}": float(value)
            for name in WITH_INTERVAL
            for end, value in zip(("low", "high"), evaluation.intervals[name][:, -1], strict=True)
        },
        "n_tracks": float(len(evaluation.track_ids)),
    }


def has_labels(evaluation: Evaluation, tags: Mapping[str, Collection[str]]) -> bool:
    """Return whether an evaluation holds exactly these tracks and tags, apart from tags that its model lacks."""
    truth = targets_by_track(tags, evaluation.vocabulary)
    return truth.keys() == set(evaluation.track_ids) and all(
        (truth[track_id] == targets).all()
        for track_id, targets in zip(evaluation.track_ids, evaluation.targets, strict=True)
    )


def to_table(evaluation: Evaluation) -> pa.Table:
    """Return a row per track: track_id, group, targets list<bool>, scores and raw_scores list<float32>.

    Lists are in vocabulary order. Split, vocabulary and thresholds are stored as JSON in the schema's metadata.
    """
    description = {
        "split": evaluation.split,
        "vocabulary": list(evaluation.vocabulary),
        "thresholds": evaluation.thresholds.tolist(),
    }
    ends = np.arange(len(evaluation.track_ids) + 1, dtype=np.int32) * len(evaluation.vocabulary)
    columns = {
        "track_id": pa.array(evaluation.track_ids, pa.string()),
        "group": pa.array(evaluation.groups, pa.string()),
        "targets": pa.ListArray.from_arrays(ends, pa.array(evaluation.targets.ravel(), pa.bool_())),
        "scores": pa.ListArray.from_arrays(ends, pa.array(evaluation.scores.ravel(), pa.float32())),
        "raw_scores": pa.ListArray.from_arrays(ends, pa.array(evaluation.raw_scores.ravel(), pa.float32())),
    }
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: json.dumps(description)})


def from_table(table: pa.Table) -> Evaluation:
    """Invert `to_table`. Raises `StoreError`, which names what the table lacks."""
    advice = "this version of musictag did not write it; evaluate again with `python pipelines/evaluate.py`"
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise StoreError(f"the table has no column {', '.join(missing)}: {advice}")
    metadata = table.schema.metadata or {}
    if METADATA_KEY not in metadata:
        raise StoreError(f"the table's schema has no metadata {METADATA_KEY.decode()!r}: {advice}")
    description = json.loads(metadata[METADATA_KEY])
    if missing := [name for name in ("split", "vocabulary", "thresholds") if name not in description]:
        raise StoreError(f"the table's metadata {METADATA_KEY.decode()!r} has no {', '.join(missing)}: {advice}")
    n_tags = len(description["vocabulary"])
    return Evaluation(
        split=description["split"],
        track_ids=tuple(table["track_id"].to_pylist()),
        groups=tuple(table["group"].to_pylist()),
        vocabulary=tuple(description["vocabulary"]),
        targets=_matrix(table, "targets", n_tags).astype(np.bool_),
        scores=_matrix(table, "scores", n_tags).astype(np.float32),
        raw_scores=_matrix(table, "raw_scores", n_tags).astype(np.float32),
        thresholds=np.array(description["thresholds"], dtype=np.float64),
    )


def read(path: Path, model: str) -> Evaluation:
    """Read the evaluation of a model from a file. Raises `StoreError`, which names the model, if it is broken."""
    try:
        return from_table(pq.read_table(path))
    except (StoreError, ModelError, pa.ArrowInvalid, OSError, ValueError) as error:  # ValueError: text, JSON
        raise StoreError(f"the evaluation of {model}: {error}") from error


def _arrays(
    evaluation: Evaluation,
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32], NDArray[np.bool_]]:
    """Return targets, scores, raw scores and given tags, (N, K) each."""
    predicted = metrics.apply_thresholds(evaluation.scores, evaluation.thresholds)
    return evaluation.targets, evaluation.scores, evaluation.raw_scores, predicted


def _figures(
    targets: NDArray[np.bool_],
    scores: NDArray[np.floating],
    raw_scores: NDArray[np.floating],
    predicted: NDArray[np.bool_],
) -> dict[str, NDArray[np.float64]]:
    """Return `FIGURES` by name, (K,) each."""
    precision, recall, f1 = metrics.precision_recall_f1(targets, predicted)
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "pr_auc": metrics.average_precision(targets, scores),
        "roc_auc": metrics.roc_auc(targets, scores),
        "ece": metrics.expected_calibration_error(targets, scores),
        "ece_raw": metrics.expected_calibration_error(targets, raw_scores),
    }


def _matrix(table: pa.Table, name: str, n_tags: int) -> NDArray[Any]:
    """Return a column of lists as (N, K)."""
    if not pa.types.is_list(table.schema.field(name).type):
        raise StoreError(f"column {name} is not a list: write the evaluation again with `python pipelines/evaluate.py`")
    column = table[name].combine_chunks()
    if wrong := set(column.value_lengths().to_pylist()) - {n_tags}:
        raise StoreError(
            f"column {name} has a list of {wrong.pop()} values where the vocabulary has {n_tags} tags: "
            "write the evaluation again with `python pipelines/evaluate.py`"
        )
    return np.asarray(column.flatten().to_numpy(zero_copy_only=False)).reshape(len(table), n_tags)
