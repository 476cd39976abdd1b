"""Two models on the same tracks: by how much one is better, tag by tag, and where that is more than chance."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from musictag.errors import PromotionError
from musictag.evaluation import bootstrap
from musictag.evaluation.results import Evaluation

COMPARED = ("pr_auc", "roc_auc", "f1")
"""Figures of `bootstrap.figures` that are compared tag by tag."""


def compare(candidate: Evaluation, champion: Evaluation) -> pa.Table:
    """Rows of figure, tag, candidate, champion, difference, low, high, clear: for each figure the tags of both, sorted.

    `difference` is candidate minus champion, `low` and `high` are its 95 % interval: both models are judged on the same
    draws of the artists (paired bootstrap, see `evaluation.bootstrap`). `clear` is whether the interval leaves out 0. A
    figure of a tag that a model does not know is NaN. The last row of each figure has the tag null: macro, over the
    tags that both know. The last row of all is the calibration error (`ece`) of all decisions on those; less is better.

    Raises:
        PromotionError: they are not evaluations of the same tracks with the same truth.
    """
    check_comparable(candidate, champion)
    tags = sorted({*candidate.vocabulary, *champion.vocabulary})
    shared = np.array([tag in candidate.vocabulary and tag in champion.vocabulary for tag in tags], dtype=bool)
    # The first draw is the tracks as they are.
    weights = np.concatenate([np.ones((1, len(candidate.groups)), dtype=int), bootstrap.draws(candidate.groups)])
    row_of = {track_id: n for n, track_id in enumerate(candidate.track_ids)}
    of_candidate = _drawn(candidate, weights)
    rows = [row_of[track_id] for track_id in champion.track_ids]
    of_champion = _drawn(champion, weights[:, rows])
    tables = []
    for figure in COMPARED:
        new, old = (
            _with_macro(_spread(drawn[figure], evaluation.vocabulary, tags), shared)
            for evaluation, drawn in ((candidate, of_candidate), (champion, of_champion))
        )
        tables.append(_rows(figure, [*tags, None], new, old))
    both = {*candidate.vocabulary} & {*champion.vocabulary}
    new, old = _calibration_error(candidate, weights, both), _calibration_error(champion, weights[:, rows], both)
    return pa.concat_tables([*tables, _rows("ece", [None], new, old)])


def check_comparable(candidate: Evaluation, champion: Evaluation) -> None:
    """`PromotionError` with the first difference in split, tracks or truth that makes a comparison unfair."""
    if champion.split != candidate.split:
        _refuse(f"the champion was evaluated on the {champion.split} split")
    if added_or_gone := differences("tracks", candidate.track_ids, champion.track_ids):
        _refuse(f"they were evaluated on different {candidate.split} tracks: {added_or_gone}")
    row_of = {track_id: n for n, track_id in enumerate(champion.track_ids)}
    rows = [row_of[track_id] for track_id in candidate.track_ids]
    shared = [tag for tag in candidate.vocabulary if tag in champion.vocabulary]
    new, old = (e.targets[:, [e.vocabulary.index(tag) for tag in shared]] for e in (candidate, champion))
    changed = (new != old[rows]).any(axis=1)
    if changed.any():
        relabelled = [candidate.track_ids[n] for n in np.flatnonzero(changed)]
        _refuse(f"{len(relabelled)} {candidate.split} tracks were relabelled in between ({some(relabelled)})")


def differences(what: str, candidate: Collection[str], champion: Collection[str]) -> str:
    """Which names only one of the two has, or an empty text."""
    only = {"candidate": set(candidate) - set(champion), "champion": set(champion) - set(candidate)}
    return ", ".join(f"{len(names)} {what} only the {who} has ({some(names)})" for who, names in only.items() if names)


def some(names: Collection[str]) -> str:
    """The first three of these names."""
    return ", ".join(sorted(names)[:3]) + (", \u2026" if len(names) > 3 else "")


def _rows(figure: str, tags: list[str | None], new: NDArray[np.float64], old: NDArray[np.float64]) -> pa.Table:
    """The rows of one figure from its values (D, len(tags)), of which the first are those of the tracks as they are."""
    difference = new - old
    low, high = bootstrap.interval(difference[1:])
    columns = {
        "figure": [figure] * len(tags),
        "tag": pa.array(tags, pa.string()),
        "candidate": new[0],
        "champion": old[0],
        "difference": difference[0],
        "low": low,
        "high": high,
        "clear": (low > 0) | (high < 0),
    }
    return pa.table(columns)


def _calibration_error(evaluation: Evaluation, weights: NDArray[np.int64], tags: set[str]) -> NDArray[np.float64]:
    """Values (D, 1), of all decisions on these tags."""
    known = [tag in tags for tag in evaluation.vocabulary]
    values = bootstrap.pooled_calibration_error(evaluation.targets[:, known], evaluation.scores[:, known], weights)
    return values[:, None]


def _drawn(evaluation: Evaluation, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    return bootstrap.figures(evaluation.targets, evaluation.scores, evaluation.thresholds, weights)


def _spread(values: NDArray[np.float64], vocabulary: tuple[str, ...], tags: list[str]) -> NDArray[np.float64]:
    """Values (D, K) of a vocabulary as values (D, len(tags)), NaN for a tag that it lacks."""
    spread = np.full((len(values), len(tags)), np.nan)
    spread[:, [tags.index(tag) for tag in vocabulary]] = values
    return spread


def _with_macro(values: NDArray[np.float64], shared: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Values (D, K) and as one more column their macro over the shared tags."""
    return np.column_stack([values, bootstrap.macro(values[:, shared])])


def _refuse(difference: str) -> None:
    raise PromotionError(
        f"the two models cannot be compared, {difference}; evaluate both on the same catalog "
        "(`python pipelines/evaluate.py --model MODEL`), then again"
    )
