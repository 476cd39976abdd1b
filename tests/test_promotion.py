import dataclasses

import numpy as np
import pytest

from musictag.errors import PromotionError
from musictag.evaluation import Evaluation
from musictag.promotion import decide


def evaluate(scores, **changes):
    fields = {
        "split": "test",
        "track_ids": ("a", "b", "c", "d"),
        "vocabulary": ("jazz", "rock"),
        "targets": np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool),
        "scores": np.array(scores, np.float32),
        "thresholds": np.array([0.5, 0.5]),
    }
    return Evaluation(**(fields | changes))


RIGHT = evaluate([[0.9, 0.1], [0.2, 0.8], [0.8, 0.9], [0.1, 0.2]])
# jazz ranks a, b, c: PR-AUC (1 + 2/3) / 2; rock is right.
WORSE = evaluate([[0.9, 0.1], [0.8, 0.8], [0.2, 0.9], [0.1, 0.2]])


def test_without_a_champion_the_candidate_is_promoted():
    decision = decide(WORSE, None)
    assert decision.promote
    assert decision.champion_pr_auc is None
    assert decision.reason == "promoted: there is no champion yet; macro PR-AUC 0.9167 on 4 test tracks"


def test_a_better_candidate_is_promoted():
    decision = decide(RIGHT, WORSE)
    assert decision.promote
    assert (decision.n_tracks, decision.candidate_pr_auc) == (4, 1.0)
    assert decision.champion_pr_auc == pytest.approx(11 / 12)
    assert decision.reason == (
        "promoted: macro PR-AUC 1.0000 is above the champion's 0.9167 (difference +0.0833) on the same 4 test tracks"
    )


def test_a_worse_candidate_is_not_promoted():
    decision = decide(WORSE, RIGHT)
    assert not decision.promote
    assert decision.reason.startswith("not promoted: macro PR-AUC 0.9167 is below the champion's 1.0000 (difference -0")


def test_an_equal_candidate_is_not_promoted():
    decision = decide(RIGHT, RIGHT)
    assert not decision.promote
    assert "equal to" in decision.reason


def test_the_order_of_tracks_and_tags_does_not_matter():
    order = [2, 0, 3, 1]
    turned = dataclasses.replace(
        WORSE,
        track_ids=tuple(WORSE.track_ids[n] for n in order),
        vocabulary=WORSE.vocabulary[::-1],
        targets=WORSE.targets[order, ::-1],
        scores=WORSE.scores[order, ::-1],
    )
    assert decide(RIGHT, turned).promote
    assert not decide(turned, WORSE).promote


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"track_ids": ("a", "b", "c", "e")}, r"1 tracks only the candidate has \(d\), 1 tracks only the champion has"),
        ({"targets": ~RIGHT.targets & [[True, False]] ^ RIGHT.targets}, "2 test tracks were relabelled .* \\(b, d\\)"),
        ({"vocabulary": ("folk", "rock")}, r"1 tags only the candidate has \(jazz\), 1 tags only the champion has"),
        ({"split": "validation"}, "the champion was evaluated on the validation split"),
    ],
)
def test_unlike_evaluations_are_refused_with_the_difference_and_the_remedy(changes, difference):
    with pytest.raises(PromotionError, match=difference) as refusal:
        decide(RIGHT, dataclasses.replace(RIGHT, **changes))
    assert "`python pipelines/evaluate.py --model models:/musictag@champion`" in str(refusal.value)


def test_a_candidate_evaluated_on_another_split_is_refused():
    with pytest.raises(PromotionError, match="evaluated on the train split"):
        decide(dataclasses.replace(RIGHT, split="train"), None)


def test_a_candidate_on_tracks_without_tags_is_refused():
    with pytest.raises(PromotionError, match="none of the candidate's 4 test tracks has a tag"):
        decide(dataclasses.replace(RIGHT, targets=np.zeros((4, 2), bool)), None)
