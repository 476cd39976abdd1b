"""The gate: may a candidate become the champion? A pure decision from two evaluations on the same test tracks."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from musictag.errors import PromotionError
from musictag.evaluation.comparison import compare, differences, some
from musictag.evaluation.results import Evaluation, summary

LEAST_LOW = -0.005
"""The interval of the macro difference must lie above this. Not above 0: on some hundreds of test tracks that would
refuse most of the small steps by which models get better."""
WORST_TAG = -0.05
"""What one tag may lose for the good of the others: where it surely loses more, its users would see it."""
MOST_ECE = 0.05
"""Calibration error up to which a score of 0.8 still means 8 of 10: thresholds and sorted lists lean on it."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """What one rule of the gate found."""

    name: str
    passed: bool
    finding: str
    """With the figures, as the end of a sentence."""
    figures: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """What was decided, why, and the figures behind it."""

    promote: bool
    reason: str
    """One sentence with the figures."""
    n_tracks: int
    """Test tracks that the candidate was judged on; 0 where it was forced without being judged."""
    candidate_pr_auc: float | None
    """Macro PR-AUC; None where it was forced without being judged."""
    champion_pr_auc: float | None
    """Macro PR-AUC; None where there is no champion, or it was forced without being judged."""
    rules: tuple[Rule, ...]
    """All that were asked, in order; none where there is no champion."""
    comparison: pa.Table | None
    """See `musictag.evaluation.comparison.compare`; None where there is no champion, or one of another vocabulary."""
    forced: bool = False
    """Whether a person decided it, whatever the rules say."""


def decide(candidate: Evaluation, champion: Evaluation | None) -> Decision:
    """Promote if there is no champion, or if all of these rules pass on the same test tracks.

    vocabulary: both models know the same tags.
    macro_pr_auc: the candidate's macro PR-AUC is higher, and the 95 % interval of the difference above `LEAST_LOW`.
    tags: no tag's PR-AUC is worse by more than 0.05 beyond its interval, that is, the upper end of the 95 % interval of
        its difference is below `WORST_TAG` for none.
    calibration: the candidate's calibration error of all decisions is at most `MOST_ECE`, or not worse than the
        champion's: few tracks make it larger by chance, so that worse means an interval of the difference above 0.

    All intervals are paired, by artist: see `musictag.evaluation.bootstrap`.

    Raises:
        PromotionError: an evaluation is not of the test split, defines no PR-AUC, or the two are not of the same
            tracks and targets.
    """
    _check_judgeable(candidate)
    new, n_tracks = summary(candidate)["macro_pr_auc"], len(candidate.track_ids)
    rules: list[Rule] = []
    table, failed = None, []
    finding = f"there is no champion yet; macro PR-AUC {new:.4f} on {n_tracks} test tracks"
    if champion is not None:
        rules = [_same_vocabulary(candidate, champion)]
        if rules[0].passed:
            table = compare(candidate, champion)
            rows = table.to_pylist()
            rules += [_better(rows, n_tracks), _no_tag_lost(rows), _calibrated(rows)]
        failed = [rule for rule in rules if not rule.passed]
        finding = (failed or rules[1:])[0].finding
    return Decision(
        promote=not failed,
        reason=f"{'not ' if failed else ''}promoted: {finding}",
        n_tracks=n_tracks,
        candidate_pr_auc=new,
        champion_pr_auc=summary(champion)["macro_pr_auc"] if champion else None,
        rules=tuple(rules),
        comparison=table,
    )


def force(because: str, judged: Decision) -> Decision:
    """Promoted because a person says so; what the rules say stays beside it."""
    return dataclasses.replace(
        judged, promote=True, forced=True, reason=f"forced: {because}; by the figures {judged.reason}"
    )


def force_unjudged(because: str, hindrance: str) -> Decision:
    """Promoted because a person says so, where `hindrance` left nothing to compare."""
    return Decision(
        promote=True,
        reason=f"forced: {because}; nothing was compared: {hindrance}",
        n_tracks=0,
        candidate_pr_auc=None,
        champion_pr_auc=None,
        rules=(),
        comparison=None,
        forced=True,
    )


def numbers(decision: Decision) -> dict[str, float]:
    """The figures of all rules, named as rule_figure, and `promote` as 1 or 0."""
    of_rules = {f"{rule.name}_{name}": value for rule in decision.rules for name, value in rule.figures.items()}
    return {"promote": float(decision.promote), **of_rules}


def to_json(decision: Decision) -> str:
    """The decision as JSON text, with the comparison as a list of its rows; what is undefined is null."""
    rules = [{**dataclasses.asdict(rule), "figures": _known(rule.figures)} for rule in decision.rules]
    rows = None if decision.comparison is None else [_known(row) for row in decision.comparison.to_pylist()]
    fields = {field.name: getattr(decision, field.name) for field in dataclasses.fields(Decision)}
    fields = {**_known(fields), "rules": rules, "comparison": rows}
    return json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)


def _same_vocabulary(candidate: Evaluation, champion: Evaluation) -> Rule:
    changed = differences("tags", candidate.vocabulary, champion.vocabulary)
    finding = f"both models know the same {len(candidate.vocabulary)} tags"
    if changed:
        finding = (
            f"the two models cannot be compared, they know different tags: {changed}; "
            "train the candidate on the champion's tags"
        )
    figures = {"candidate": float(len(candidate.vocabulary)), "champion": float(len(champion.vocabulary))}
    return Rule("vocabulary", not changed, finding, figures)


def _better(rows: list[dict[str, Any]], n_tracks: int) -> Rule:
    figures = _macro(rows, "pr_auc")
    difference = figures["difference"]
    relation = "above" if difference > 0 else "below" if difference < 0 else "equal to"
    finding = (
        f"macro PR-AUC {figures['candidate']:.4f} is {relation} the champion's {figures['champion']:.4f} "
        f"({_in_figures(figures)}) on the same {n_tracks} test tracks"
    )
    if difference > 0 and not figures["low"] > LEAST_LOW:
        finding += f", but the interval must lie above {LEAST_LOW}"
    return Rule("macro_pr_auc", difference > 0 and figures["low"] > LEAST_LOW, finding, figures)


def _no_tag_lost(rows: list[dict[str, Any]]) -> Rule:
    tags = [row for row in rows if row["figure"] == "pr_auc" and row["tag"] is not None]
    lost = {row["tag"]: row for row in tags if row["high"] < WORST_TAG}
    finding = f"PR-AUC of no tag is worse by more than {-WORST_TAG} beyond its interval"
    if lost:
        worst = min(lost, key=lambda tag: lost[tag]["high"])
        finding = (
            f"PR-AUC is worse by more than {-WORST_TAG} beyond the interval for {len(lost)} of {len(tags)} tags "
            f"({some(lost)}), most of all for {worst} ({_in_figures(lost[worst])})"
        )
    defined = [row["high"] for row in tags if not math.isnan(row["high"])]
    return Rule("tags", not lost, finding, {"lost": float(len(lost)), "least_high": min(defined, default=math.nan)})


def _calibrated(rows: list[dict[str, Any]]) -> Rule:
    figures = _macro(rows, "ece")
    worse = figures["difference"] > 0 and figures["low"] > 0
    passed = figures["candidate"] <= MOST_ECE or not worse
    relation = "against" if passed else f"is above {MOST_ECE} and worse than"
    finding = (
        f"calibration error {figures['candidate']:.4f} {relation} the champion's {figures['champion']:.4f} "
        f"({_in_figures(figures)})"
    )
    return Rule("calibration", passed, finding, figures)


def _macro(rows: list[dict[str, Any]], figure: str) -> dict[str, float]:
    row = next(row for row in rows if row["figure"] == figure and row["tag"] is None)
    return {name: row[name] for name in ("candidate", "champion", "difference", "low", "high")}


def _in_figures(row: Mapping[str, float]) -> str:
    if math.isnan(row["low"]):
        return f"difference {row['difference']:+.4f}, without an interval, since all tracks are of one artist"
    return f"difference {row['difference']:+.4f}, 95 % interval {row['low']:+.4f} to {row['high']:+.4f}"


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


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
