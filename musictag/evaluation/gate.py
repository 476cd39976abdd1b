"""The gate: decide whether a candidate becomes the champion, from two evaluations on the same test tracks."""

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from musictag.errors import PromotionError
from musictag.evaluation.comparison import abbreviate, compare, differences
from musictag.evaluation.results import Evaluation, summary

MIN_LOW = -0.005
"""The interval of the macro PR-AUC difference must begin above this. It is below 0 because some hundreds of test tracks
cannot show the small steps by which models improve."""
MIN_TAG_HIGH = -0.05
"""A tag is lost if the interval of its PR-AUC difference ends below this: its users would notice the loss."""
MAX_ECE = 0.05
"""Calibration error that is accepted in any case; thresholds and sorted lists depend on calibrated scores."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """The result of one rule of the gate."""

    name: str
    passed: bool
    finding: str
    """The result with its figures, as the end of a sentence."""
    figures: Mapping[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Decision:
    """A decision, its reason and its figures."""

    promote: bool
    reason: str
    """One sentence with the figures."""
    n_tracks: int
    """Number of test tracks; 0 if the decision was forced without an evaluation."""
    candidate_pr_auc: float | None
    """Macro PR-AUC; None if the decision was forced without an evaluation."""
    champion_pr_auc: float | None
    """Macro PR-AUC; None if there is no champion, or the decision was forced without an evaluation."""
    rules: tuple[Rule, ...]
    """The rules that were applied, in order; none if there is no champion, or the decision was forced without an
    evaluation."""
    comparison: pa.Table | None
    """See `comparison.compare`; None if no comparison was made: there is no champion, its vocabulary differs, or the
    decision was forced without an evaluation."""
    forced: bool = False
    """Whether a person overruled the gate."""


def decide(candidate: Evaluation, champion: Evaluation | None) -> Decision:
    """Promote the candidate if there is no champion, or if all of these rules pass on the same test tracks.

    vocabulary: both models know the same tags.
    macro_pr_auc: the candidate's macro PR-AUC is higher, and the 95 % interval of the difference above `MIN_LOW`.
    tags: for no tag is the high end of the 95 % interval of the PR-AUC's difference below `MIN_TAG_HIGH`.
    calibration: the candidate's calibration error, pooled over all tags, is at most `MAX_ECE`, or not worse than the
        champion's. Worse means that the interval of the difference is above 0, because on few tracks the error is
        larger by chance.

    Intervals are paired and drawn by artist; see `evaluation.bootstrap`.

    Raises:
        PromotionError: an evaluation is not of the test split or defines no PR-AUC, or the two evaluations are not of
            the same tracks and targets.
    """
    _check_evaluation(candidate)
    new, n_tracks = summary(candidate)["macro_pr_auc"], len(candidate.track_ids)
    rules: list[Rule] = []
    table, failed = None, []
    finding = f"there is no champion yet; macro PR-AUC {new:.4f} on {n_tracks} test tracks"
    if champion is not None:
        rules = [_same_vocabulary(candidate, champion)]
        if rules[0].passed:
            table = compare(candidate, champion)
            rows = table.to_pylist()
            rules += [_macro_improves(rows, n_tracks), _no_tag_lost(rows), _is_calibrated(rows)]
        failed = [rule for rule in rules if not rule.passed]
        # The reason is the finding of the first rule that failed, or else that of macro PR-AUC.
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
    """Return the decision overruled by a person; the results of the rules are kept."""
    return dataclasses.replace(
        judged, promote=True, forced=True, reason=f"forced: {because}; by the figures {judged.reason}"
    )


def force_unjudged(because: str, hindrance: str) -> Decision:
    """Return a decision by a person without a comparison, which `hindrance` prevented."""
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
    """Return the figures of all rules, named RULE_FIGURE, and `promote` as 1 or 0."""
    of_rules = {f"{rule.name}_{name}": value for rule in decision.rules for name, value in rule.figures.items()}
    return {"promote": float(decision.promote), **of_rules}


def to_json(decision: Decision) -> str:
    """Return the decision as JSON, with the comparison as a list of rows; undefined figures are null."""
    rules = [{**dataclasses.asdict(rule), "figures": _nan_to_none(rule.figures)} for rule in decision.rules]
    rows = None if decision.comparison is None else [_nan_to_none(row) for row in decision.comparison.to_pylist()]
    fields = {field.name: getattr(decision, field.name) for field in dataclasses.fields(Decision)}
    fields = {**_nan_to_none(fields), "rules": rules, "comparison": rows}
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


def _macro_improves(rows: list[dict[str, Any]], n_tracks: int) -> Rule:
    figures = _macro(rows, "pr_auc")
    difference = figures["difference"]
    relation = "above" if difference > 0 else "below" if difference < 0 else "equal to"
    finding = (
        f"macro PR-AUC {figures['candidate']:.4f} is {relation} the champion's {figures['champion']:.4f} "
        f"({_format_difference(figures)}) on the same {n_tracks} test tracks"
    )
    if difference > 0 and not figures["low"] > MIN_LOW:
        finding += f", but the interval must lie above {MIN_LOW}"
    return Rule("macro_pr_auc", difference > 0 and figures["low"] > MIN_LOW, finding, figures)


def _no_tag_lost(rows: list[dict[str, Any]]) -> Rule:
    tags = [row for row in rows if row["figure"] == "pr_auc" and row["tag"] is not None]
    lost = {row["tag"]: row for row in tags if row["high"] < MIN_TAG_HIGH}
    finding = f"no tag has a PR-AUC difference whose interval lies below {MIN_TAG_HIGH}"
    if lost:
        worst = min(lost, key=lambda tag: lost[tag]["high"])
        finding = (
            f"the interval of the PR-AUC difference lies below {MIN_TAG_HIGH} for {len(lost)} of {len(tags)} tags "
            f"({abbreviate(lost)}), lowest for {worst} ({_format_difference(lost[worst])})"
        )
    defined = [row["high"] for row in tags if not math.isnan(row["high"])]
    return Rule("tags", not lost, finding, {"lost": float(len(lost)), "least_high": min(defined, default=math.nan)})


def _is_calibrated(rows: list[dict[str, Any]]) -> Rule:
    figures = _macro(rows, "ece")
    worse = figures["difference"] > 0 and figures["low"] > 0
    passed = figures["candidate"] <= MAX_ECE or not worse
    relation = "against" if passed else f"is above {MAX_ECE} and worse than"
    finding = (
        f"calibration error {figures['candidate']:.4f} {relation} the champion's {figures['champion']:.4f} "
        f"({_format_difference(figures)})"
    )
    return Rule("calibration", passed, finding, figures)


def _macro(rows: list[dict[str, Any]], figure: str) -> dict[str, float]:
    row = next(row for row in rows if row["figure"] == figure and row["tag"] is None)
    return {name: row[name] for name in ("candidate", "champion", "difference", "low", "high")}


def _format_difference(row: Mapping[str, float]) -> str:
    if math.isnan(row["low"]):
        return f"difference {row['difference']:+.4f}, without an interval, since all tracks are of one artist"
    return f"difference {row['difference']:+.4f}, 95 % interval {row['low']:+.4f} to {row['high']:+.4f}"


def _nan_to_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in values.items()}


def _check_evaluation(candidate: Evaluation) -> None:
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
