"""The gate: may a candidate become the champion? A pure decision from two evaluations on the same test tracks."""

import dataclasses
import math
from collections.abc import Collection

import numpy as np

from musictag.errors import PromotionError
from musictag.evaluation import Evaluation, summary

EVALUATE_CHAMPION = "python pipelines/evaluate.py --model models:/musictag@champion"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided, why, and the figures behind it."""

    promote: bool
    reason: str
    """One sentence with the figures."""
    n_tracks: int
    """Test tracks that both models were judged on."""
    candidate_pr_auc: float
    """Macro PR-AUC."""
    champion_pr_auc: float | None
    """Macro PR-AUC; None where there is no champion."""


def decide(candidate: Evaluation, champion: Evaluation | None) -> Decision:
    """Promote if there is no champion, or if the candidate's macro PR-AUC on the same test tracks is higher.

    Raises:
        PromotionError: an evaluation is not of the test split, defines no PR-AUC, or the two are not of the same
            tracks, targets and vocabulary.
    """
    _check_judgeable(candidate)
    new = summary(candidate)["macro_pr_auc"]
    n_tracks = len(candidate.track_ids)
    if champion is None:
        reason = f"promoted: there is no champion yet; macro PR-AUC {new:.4f} on {n_tracks} test tracks"
        return Decision(promote=True, reason=reason, n_tracks=n_tracks, candidate_pr_auc=new, champion_pr_auc=None)
    _check_comparable(candidate, champion)
    old = summary(champion)["macro_pr_auc"]
    outcome = "promoted" if new > old else "not promoted"
    relation = "above" if new > old else "below" if new < old else "equal to"
    reason = (
        f"{outcome}: macro PR-AUC {new:.4f} is {relation} the champion's {old:.4f} "
        f"(difference {new - old:+.4f}) on the same {n_tracks} test tracks"
    )
    return Decision(promote=new > old, reason=reason, n_tracks=n_tracks, candidate_pr_auc=new, champion_pr_auc=old)


def _check_judgeable(candidate: Evaluation) -> None:
    if candidate.split != "test":
        raise PromotionError(
            f"the candidate was evaluated on the {candidate.split} split, and promotion is decided on the test split: "
            "run `python pipelines/evaluate.py --model MODEL --split test`"
        )
    if math.isnan(summary(candidate)["macro_pr_auc"]):
        raise PromotionError(
            f"none of the candidate's {len(candidate.track_ids)} test tracks has a tag of its vocabulary, "
            "so that no PR-AUC is defined: give the catalog's test tracks tags"
        )


def _check_comparable(candidate: Evaluation, champion: Evaluation) -> None:
    """`PromotionError` with the first difference that makes the comparison unfair."""
    if champion.split != candidate.split:
        _refuse(f"the champion was evaluated on the {champion.split} split")
    if added_or_gone := _differences("tags", candidate.vocabulary, champion.vocabulary):
        raise PromotionError(
            f"the two models cannot be compared, they know different tags: {added_or_gone}; "
            f"train the candidate on the champion's tags, or promote it with --force --reason TEXT "
            f"(the champion's own figures: `{EVALUATE_CHAMPION}`)"
        )
    if added_or_gone := _differences("tracks", candidate.track_ids, champion.track_ids):
        _refuse(f"they were evaluated on different test tracks: {added_or_gone}")
    row_of = {track_id: n for n, track_id in enumerate(champion.track_ids)}
    column_of = {tag: k for k, tag in enumerate(champion.vocabulary)}
    rows = [row_of[track_id] for track_id in candidate.track_ids]
    columns = [column_of[tag] for tag in candidate.vocabulary]
    changed = (candidate.targets != champion.targets[np.ix_(rows, columns)]).any(axis=1)
    if changed.any():
        relabelled = [candidate.track_ids[n] for n in np.flatnonzero(changed)]
        _refuse(f"{len(relabelled)} test tracks were relabelled in between ({_some(relabelled)})")


def _refuse(difference: str) -> None:
    raise PromotionError(f"the two models cannot be compared, {difference}; run `{EVALUATE_CHAMPION}`, then again")


def _differences(what: str, candidate: Collection[str], champion: Collection[str]) -> str:
    """Which names only one of the two has, or an empty text."""
    only = {"candidate": set(candidate) - set(champion), "champion": set(champion) - set(candidate)}
    return ", ".join(f"{len(names)} {what} only the {who} has ({_some(names)})" for who, names in only.items() if names)


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:3]) + (", \u2026" if len(names) > 3 else "")
