import dataclasses
import json

import numpy as np
import pytest

from musictag.errors import PromotionError
from musictag.evaluation import gate
from musictag.evaluation.calibration import fit_calibration, logit
from musictag.evaluation.gate import decide, numbers, to_json
from musictag.evaluation.results import Evaluation, summary


def evaluate(scores, **changes):
    scores = np.array(scores, np.float32)
    fields = {
        "split": "test",
        "track_ids": ("a", "b", "c", "d"),
        "groups": ("track:a", "track:b", "track:c", "track:d"),
        "vocabulary": ("jazz", "rock"),
        "targets": np.array([[1, 0], [0, 1], [1, 1], [0, 0]], bool),
        "scores": scores,
        "raw_scores": scores,
        "thresholds": np.array([0.5, 0.5]),
    }
    return Evaluation(**(fields | changes))


RIGHT = evaluate([[0.9, 0.1], [0.2, 0.8], [0.8, 0.9], [0.1, 0.2]])
# jazz ranks a, b, c: PR-AUC (1 + 2/3) / 2; rock is right.
WORSE = evaluate([[0.9, 0.1], [0.8, 0.8], [0.2, 0.9], [0.1, 0.2]])

N_TRACKS, N_TAGS = 200, 4
TARGETS = np.random.default_rng(0).random((N_TRACKS, N_TAGS)) < 0.4


def model(scores, targets=TARGETS, **changes):
    """An evaluation on 200 tracks, two of each artist."""
    n_tracks, n_tags = targets.shape
    scores = np.clip(scores, 0, 1).astype(np.float32)
    return evaluate(
        scores,
        **{
            "track_ids": tuple(map(str, range(n_tracks))),
            "groups": tuple(f"artist:{n // 2}" for n in range(n_tracks)),
            "vocabulary": ("jazz", "polka", "rock", "waltz")[:n_tags],
            "targets": targets,
            "thresholds": np.full(n_tags, 0.5),
            **changes,
        },
    )


def guess(skill, seed, targets=TARGETS):
    """Calibrated scores that hold so much of the truth: one skill for all tags or one for each."""
    noise = np.random.default_rng(seed).random(targets.shape)
    scores = skill * targets + (1 - np.asarray(skill)) * noise
    scale, bias = fit_calibration(targets, scores).T
    return 1 / (1 + np.exp(-scale * logit(scores) - bias))


def failed(decision):
    return [rule.name for rule in decision.rules if not rule.passed]


def test_candidate_is_promoted_without_a_champion():
    decision = decide(WORSE, None)
    assert decision.promote
    assert decision.champion_pr_auc is None
    assert decision.rules == ()
    assert decision.reason == "promoted: there is no champion yet; macro PR-AUC 0.9167 on 4 test tracks"


def test_better_candidate_is_promoted():
    decision = decide(RIGHT, WORSE)
    assert decision.promote
    assert (decision.n_tracks, decision.candidate_pr_auc) == (4, 1.0)
    assert decision.champion_pr_auc == pytest.approx(11 / 12)
    assert decision.reason.startswith(
        "promoted: macro PR-AUC 1.0000 is above the champion's 0.9167 (difference +0.0833, 95 % interval +0.0000 to +0."
    )
    assert decision.reason.endswith(") on the same 4 test tracks")
    assert [rule.name for rule in decision.rules] == ["vocabulary", "macro_pr_auc", "tags", "calibration"]
    assert failed(decision) == []


def test_worse_candidate_is_refused():
    decision = decide(WORSE, RIGHT)
    assert not decision.promote
    assert decision.reason.startswith("not promoted: macro PR-AUC 0.9167 is below the champion's 1.0000 (difference -0")


def test_equal_candidate_is_refused():
    decision = decide(RIGHT, RIGHT)
    assert not decision.promote
    assert "equal to" in decision.reason


def test_candidate_better_by_chance_is_refused():
    # Of equal skill: the noise of one happens to be kinder.
    one, other = model(guess(0.2, 1)), model(guess(0.2, 2))
    lucky, unlucky = sorted((one, other), key=lambda each: -summary(each)["macro_pr_auc"])
    decision = decide(lucky, unlucky)
    assert not decision.promote
    assert failed(decision) == ["macro_pr_auc"]
    assert "is above the champion's" in decision.reason
    assert decision.reason.endswith("but the interval must lie above -0.005")
    figures = decision.rules[1].figures
    assert figures["difference"] > 0 > gate.MIN_LOW > figures["low"]


def test_candidate_that_loses_a_tag_is_refused():
    champion = model(guess(0.3, 1))
    candidate = model(guess([0.6, 0.6, 0.0, 0.6], 5))
    decision = decide(candidate, champion)
    assert failed(decision) == ["tags"]
    assert "for 1 of 4 tags (rock), lowest for rock (difference -0." in decision.reason
    assert decision.rules[1].figures["low"] > 0
    assert decision.rules[2].figures["lost"] == 1
    assert decision.rules[2].figures["least_high"] < gate.MIN_TAG_HIGH


def test_tag_lost_by_chance_is_accepted():
    champion = model(guess(0.3, 1))
    candidate = model(guess([0.6, 0.6, 0.2, 0.6], 5))
    decision = decide(candidate, champion)
    rock = next(row for row in decision.comparison.to_pylist() if (row["figure"], row["tag"]) == ("pr_auc", "rock"))
    assert rock["difference"] < gate.MIN_TAG_HIGH < rock["high"]
    assert decision.promote


def test_uncalibrated_candidate_is_refused():
    all_high = model(np.where(TARGETS, 0.99, 0.8))
    decision = decide(all_high, model(guess(0.3, 1)))
    assert failed(decision) == ["calibration"]
    assert decision.reason.startswith("not promoted: calibration error 0.")
    assert "is above 0.05 and worse than the champion's" in decision.reason


def test_calibration_error_worse_by_chance_is_accepted():
    # Both are calibrated: on 50 tracks each of them has an error, and one has the greater.
    rng = np.random.default_rng(0)
    truth = rng.random((50, N_TAGS))
    targets = rng.random(truth.shape) < truth
    blurred = [np.round(truth + rng.uniform(-0.1, 0.1, truth.shape), 2) for _ in range(2)]
    one, other = (model(scores, targets) for scores in blurred)
    worse, less = sorted((one, other), key=lambda each: -summary(each)["micro_ece"])
    rule = decide(worse, less).rules[3]
    assert rule.figures["candidate"] > gate.MAX_ECE
    assert rule.figures["difference"] > 0
    assert rule.passed
    assert f"{rule.figures['candidate']:.4f} against the champion's {rule.figures['champion']:.4f}" in rule.finding


def test_order_of_tracks_and_tags_does_not_matter():
    order = [2, 0, 3, 1]
    turned = dataclasses.replace(
        WORSE,
        track_ids=tuple(WORSE.track_ids[n] for n in order),
        groups=tuple(WORSE.groups[n] for n in order),
        vocabulary=WORSE.vocabulary[::-1],
        **{name: getattr(WORSE, name)[order, ::-1] for name in ("targets", "scores", "raw_scores")},
    )
    assert decide(RIGHT, turned).promote
    assert not decide(turned, WORSE).promote


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"track_ids": ("a", "b", "c", "e")}, r"1 tracks only the candidate has \(d\), 1 tracks only the champion has"),
        ({"targets": ~RIGHT.targets & [[True, False]] ^ RIGHT.targets}, "2 test tracks were relabelled .* \\(b, d\\)"),
        ({"split": "validation"}, "the champion was evaluated on the validation split"),
    ],
)
def test_incomparable_evaluations_are_refused(changes, difference):
    with pytest.raises(PromotionError, match=difference) as refusal:
        decide(RIGHT, dataclasses.replace(RIGHT, **changes))
    assert "evaluate both on the same catalog (`python pipelines/evaluate.py --model MODEL`)" in str(refusal.value)


def test_other_vocabulary_is_refused_with_the_difference():
    decision = decide(RIGHT, dataclasses.replace(WORSE, vocabulary=("folk", "rock")))
    assert not decision.promote
    assert failed(decision) == ["vocabulary"]
    assert decision.reason == (
        "not promoted: the two models cannot be compared, they know different tags: 1 tags only the candidate has "
        "(jazz), 1 tags only the champion has (folk); train the candidate on the champion's tags"
    )
    assert json.loads(to_json(decision))["comparison"] is None


def test_decision_about_disjoint_vocabularies_is_written():
    gone = dataclasses.replace(WORSE, vocabulary=("folk", "polka"), targets=np.zeros((4, 2), bool))
    kept = json.loads(to_json(gate.force("new words", decide(RIGHT, gone))))
    assert (kept["promote"], kept["champion_pr_auc"]) == (True, None)


def test_candidate_of_another_split_is_refused():
    with pytest.raises(PromotionError, match="evaluated on the train split"):
        decide(dataclasses.replace(RIGHT, split="train"), None)


def test_candidate_on_untagged_tracks_is_refused():
    with pytest.raises(PromotionError, match="none of the candidate's 4 test tracks has a tag"):
        decide(dataclasses.replace(RIGHT, targets=np.zeros((4, 2), bool)), None)


def test_tag_without_a_positive_track_does_not_count():
    targets = RIGHT.targets & [False, True]
    assert decide(dataclasses.replace(RIGHT, targets=targets), None).promote
    better = [[0.9, 0.1], [0.2, 0.8], [0.8, 0.9], [0.1, 0.2]]
    worse = [[0.9, 0.1], [0.2, 0.8], [0.8, 0.1], [0.1, 0.2]]
    decision = decide(evaluate(better, targets=targets), evaluate(worse, targets=targets))
    assert decision.promote
    assert decision.rules[2].figures["lost"] == 0


def test_single_artist_is_refused():
    groups = ("artist:x",) * 4
    decision = decide(dataclasses.replace(RIGHT, groups=groups), dataclasses.replace(WORSE, groups=groups))
    assert failed(decision) == ["macro_pr_auc"]
    assert "without an interval, since all tracks are of one artist" in decision.reason
    assert json.loads(to_json(decision))["rules"][1]["figures"]["low"] is None


def test_vocabulary_of_one_tag_is_judged():
    targets = TARGETS[:, :1]
    new, old = (model(guess(skill, 1, targets), targets) for skill in (0.5, 0.1))
    assert decide(new, old).promote
    assert failed(decide(old, new))[0] == "macro_pr_auc"


def test_five_tracks_are_judged():
    targets = np.array([[True], [True], [False], [False], [False]])
    right, wrong = (model(np.where(targets == good, 0.9, 0.1), targets) for good in (True, False))
    assert decide(right, wrong).promote
    assert not decide(wrong, right).promote


def test_decision_is_written_with_all_figures():
    decision = decide(model(guess(0.5, 1)), model(guess(0.1, 1)))
    kept = json.loads(to_json(decision))
    assert kept["promote"] is True
    assert kept["reason"] == decision.reason
    assert [rule["name"] for rule in kept["rules"]] == [rule.name for rule in decision.rules]
    assert kept["comparison"] == decision.comparison.to_pylist()
    figures = numbers(decision)
    assert figures["promote"] == 1
    assert figures["macro_pr_auc_low"] == decision.rules[1].figures["low"]
    assert figures["calibration_candidate"] == pytest.approx(summary(model(guess(0.5, 1)))["micro_ece"])


def test_forced_decision_keeps_the_results_of_the_rules():
    judged = decide(WORSE, RIGHT)
    forced = gate.force("agreed with the editors", judged)
    assert forced.reason == f"forced: agreed with the editors; by the figures {judged.reason}"
    kept = json.loads(to_json(forced))
    assert (kept["promote"], kept["forced"]) == (True, True)
    assert {**kept, "promote": False, "forced": False, "reason": judged.reason} == json.loads(to_json(judged))
    assert numbers(forced) == {**numbers(judged), "promote": 1}


def test_forced_decision_without_comparison_says_so():
    kept = json.loads(to_json(gate.force_unjudged("a try", "there is no evaluation")))
    assert kept == {
        "promote": True,
        "forced": True,
        "reason": "forced: a try; nothing was compared: there is no evaluation",
        "n_tracks": 0,
        "candidate_pr_auc": None,
        "champion_pr_auc": None,
        "rules": [],
        "comparison": None,
    }
