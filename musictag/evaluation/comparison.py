"""Compare two models on the same tracks, tag by tag, with intervals of the differences."""

from collections.abc import Collection

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from musictag.errors import PromotionError
from musictag.evaluation import bootstrap
from musictag.evaluation.results import Evaluation

COMPARED = ("pr_auc", "roc_auc", "f1")
"""Figures of `bootstrap.figures` that are compared per tag."""


def compare(candidate: Evaluation, champion: Evaluation) -> pa.Table:
    """Return a table of figure, tag, candidate, champion, difference, low, high, clear.

    It has a row for each figure and each tag of either model, sorted. `difference` is candidate minus champion; `low`
    and `high` are its 95 % interval by paired bootstrap (see `evaluation.bootstrap`); `clear` says whether the interval
    excludes 0. The figure of a tag that a model does not know is NaN. The last row of each figure has the tag null and
    holds the macro value over the tags that both models know. The last row of the table is the calibration error
    (`ece`) of all decisions on those tags; lower is better.

    Raises:
        PromotionError: the evaluations are not of the same tracks with the same truth.
    """
    check_comparable(candidate, champion)
    tags = sorted({*candidate.vocabulary, *champion.vocabulary})
    shared = np.array([tag in candidate.vocabulary and tag in champion.vocabulary for tag in tags], dtype=bool)
    # The first draw has weight 1 for each track: the figures themselves.
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
    """Raise `PromotionError` if split, tracks or truth differ; the message names the first difference."""
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
        _refuse(f"{len(relabelled)} {candidate.split} tracks were relabelled in between ({abbreviate(relabelled)})")


def differences(what: str, candidate: Collection[str], champion: Collection[str]) -> str:
    """Describe the names that only one of the two has; empty if there are none."""
    only = {"candidate": set(candidate) - set(champion), "champion": set(champion) - set(candidate)}
    return ", ".join(
        f"{len(names)} {what} only the {who} has ({abbreviate(names)})" for who, names in only.items() if names
    )


def abbreviate(names: Collection[str]) -> str:
    """Return the first three names, sorted, and an ellipsis if there are more."""
    return ", ".join(sorted(names)[:3]) + (", \u2026" if len(names) > 3 else "")


def _rows(figure: str, tags: list[str | None], new: NDArray[np.float64], old: NDArray[np.float64]) -> pa.Table:
    """Return the rows of one figure from its values (D, len(tags)); the first draw is the figure itself."""
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
    """Return the pooled calibration error (D, 1) over these tags."""
    known = [tag in tags for tag in evaluation.vocabulary]
    values = bootstrap.pooled_calibration_error(evaluation.targets[:, known], evaluation.scores[:, known], weights)
    return values[:, None]


def _drawn(evaluation: Evaluation, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    return bootstrap.figures(evaluation.targets, evaluation.scores, evaluation.thresholds, weights)


def _spread(values: NDArray[np.float64], vocabulary: tuple[str, ...], tags: list[str]) -> NDArray[np.float64]:
    """Return values (D, K) of a vocabulary as (D, len(tags)), NaN for tags it does not have."""
    spread = np.full((len(values), len(tags)), np.nan)
    spread[:, [tags.index(tag) for tag in vocabulary]] = values
    return spread


def _with_macro(values: NDArray[np.float64], shared: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Append the macro value over the shared tags to values (D, K) as a column."""
    return np.column_stack([values, bootstrap.macro(values[:, shared])])


def _refuse(difference: str) -> None:
    raise PromotionError(
        f"the two models cannot be compared, {difference}; evaluate both on the same catalog "
        "(`python pipelines/evaluate.py --model MODEL`), then again"
    )
