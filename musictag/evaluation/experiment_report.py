"""Report an experiment as a page of Markdown: networks and classical methods on the same test tracks."""

import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from musictag.evaluation import bootstrap, comparison, metrics
from musictag.evaluation.report import cell
from musictag.evaluation.results import Evaluation, per_tag, summary

NETWORK, CLASSICAL = "network", "classical"
ABOUT_ALL = (
    "Macro means over the tags that some test track has; precision is 0 where a tag is never given. In brackets: 95 % "
    "intervals by bootstrap over artists. *Calibration error* is that of all decisions pooled, before and after "
    "calibration. *Validation* is the macro PR-AUC on the validation tracks, by which the best of each kind is chosen; "
    "of a network that was trained in folds, each track is scored by a fold that held it back. *Minutes* is the time "
    "of training; for networks it includes the start of Ray, for classical methods it excludes the descriptors."
)
ABOUT_DIFFERENCES = (
    "Differences of macro means with 95 % intervals, both models judged on the same draws (paired bootstrap); **bold** "
    "where the interval excludes 0."
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One model of the experiment."""

    name: str
    kind: str
    """`NETWORK` or `CLASSICAL`."""
    evaluation: Evaluation
    validation_pr_auc: float
    """Macro PR-AUC on the validation tracks, by which the best model of a kind is chosen; NaN if undefined."""
    minutes: float
    """Duration of training, minutes."""


def best(entries: Iterable[Entry], kind: str) -> Entry:
    """Return the model of a kind with the best validation PR-AUC."""
    return _ranked(entry for entry in entries if entry.kind == kind)[0]


def _ranked(entries: Iterable[Entry]) -> list[Entry]:
    """Sort entries by validation PR-AUC, best first; undefined ones last."""
    return sorted(entries, key=lambda entry: -np.nan_to_num(entry.validation_pr_auc, nan=-1.0))


def page(title: str, about: str, entries: Sequence[Entry], chart: str) -> str:
    """Return the page.

    Args:
        title: its heading.
        about: Markdown that says what was run.
        entries: at least one of each kind, all evaluated on the same tracks.
        chart: path of the picture that compares the best two, from the page.
    """
    network, classical = best(entries, NETWORK), best(entries, CLASSICAL)
    parts = [
        f"# {title}",
        about,
        "## All models",
        _all_models(entries),
        ABOUT_ALL,
        f"## {network.name} against {classical.name}, tag by tag",
        "The best network and the best classical method by *validation*.",
        _tag_by_tag(network, classical),
        f"![Precision and recall of each tag, {network.name} and {classical.name}]({chart})",
        "## Every model against the best classical one",
        _against(entries, classical),
        ABOUT_DIFFERENCES,
        "## What it shows",
        verdict(network, classical),
    ]
    return "\n\n".join(parts) + "\n"


def verdict(network: Entry, classical: Entry) -> str:
    """Return sentences on whether the network is better than the classical method, with figures and intervals."""
    of_f1 = [row for row in _compared(network, classical) if row["figure"] == "f1"]
    *tags, macro = of_f1
    values = summary(network.evaluation)
    clear = [row["tag"] for row in tags if row["clear"] and row["difference"] > 0]
    worse = [row["tag"] for row in tags if row["clear"] and row["difference"] < 0]
    return "\n".join(
        [
            f"- Macro F1 of {network.name} is {cell(macro['candidate'])}, of {classical.name} "
            f"{cell(macro['champion'])}: difference {_difference(macro)}.",
            f"- F1 is higher in {sum(row['difference'] > 0 for row in tags)} of {len(tags)} tags, with an "
            f"interval above 0 in {len(clear)}{_named(clear)}; it is lower with an interval below 0 in {len(worse)}"
            f"{_named(worse)}. By chance alone one interval in twenty would exclude 0.",
            f"- Macro ROC-AUC of {network.name}: {cell(values['macro_roc_auc'])}.",
            f"- Calibration error of {network.name}: {cell(values['micro_ece'])} of all decisions; "
            f"{cell(values['macro_ece'])} as a mean over tags, where perfectly calibrated scores would have "
            f"{_by_chance(network.evaluation):.3f} by chance on so few tracks.",
        ]
    )


def markdown(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; the first column is left-aligned, the others right-aligned."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(cell(value).replace("|", "\\|") for value in line) + " |" for line in lines)


def _all_models(entries: Sequence[Entry]) -> str:
    rows = []
    for entry in _ranked(entries):
        values = summary(entry.evaluation)
        rows.append(
            [
                entry.name,
                entry.kind,
                values["macro_precision"],
                values["macro_recall"],
                *(_with_interval(values, f"macro_{name}") for name in ("f1", "pr_auc", "roc_auc")),
                f"{values['micro_ece_raw']:.3f} → {values['micro_ece']:.3f}",
                entry.validation_pr_auc,
                f"{entry.minutes:.1f}",
            ]
        )
    headings = ["model", "kind", "precision", "recall", "F1", "PR-AUC", "ROC-AUC", "calibration error", "validation",
                "minutes"]  # fmt: skip
    return markdown(headings, rows)


def _tag_by_tag(network: Entry, classical: Entry) -> str:
    # One of them alone may know a tag: networks in folds learn from validation tracks as well.
    of = [{row["tag"]: row for row in per_tag(entry.evaluation).to_pylist()} for entry in (network, classical)]
    known = {**of[1], **of[0]}
    rows = []
    for difference in _compared(network, classical):
        if difference["figure"] != "f1":
            continue
        if (tag := difference["tag"]) is None:
            figures = [summary(entry.evaluation) for entry in (network, classical)]
            of_both = [[values[f"macro_{name}"] for name in ("precision", "recall", "f1")] for values in figures]
            rows.append(["*macro*", "", *of_both[0], *of_both[1], _difference(difference)])
        else:
            of_both = [[rows_of.get(tag, {}).get(name) for name in ("precision", "recall", "f1")] for rows_of in of]
            rows.append([f"`{tag}`", known[tag]["support"], *of_both[0], *of_both[1], _difference(difference)])
    headings = ["tag", "tracks", *(f"{figure}, {entry.name}" for entry in (network, classical) for figure in
                ("precision", "recall", "F1")), "difference of F1"]  # fmt: skip
    return markdown(headings, rows)


def _against(entries: Sequence[Entry], champion: Entry) -> str:
    rows = []
    for entry in _ranked(entries):
        if entry is champion:
            continue
        macro = {row["figure"]: row for row in _compared(entry, champion) if row["tag"] is None}
        rows.append([entry.name, *(_difference(macro[name]) for name in ("f1", "pr_auc", "roc_auc"))])
    return markdown([f"against {champion.name}", "F1", "PR-AUC", "ROC-AUC"], rows)


@functools.lru_cache
def _compared(entry: Entry, champion: Entry) -> list[dict[str, Any]]:
    """Return the rows of `comparison.compare`; cached, because it takes a second and is used several times."""
    rows: list[dict[str, Any]] = comparison.compare(entry.evaluation, champion.evaluation).to_pylist()
    return rows


def _difference(row: dict[str, Any]) -> str:
    text = _with_ends(row["difference"], row["low"], row["high"], "+.3f")
    return f"**{text}**" if row["clear"] else text


def _with_interval(values: dict[str, float], name: str) -> str:
    return _with_ends(values[name], values[f"{name}_low"], values[f"{name}_high"], ".3f")


def _with_ends(value: float, low: float, high: float, form: str) -> str:
    """Format a value and its interval; undefined ones as a dash."""
    if math.isnan(value):
        return cell(value)
    return f"{value:{form}}" + ("" if math.isnan(low) else f" ({low:{form}} to {high:{form}})")


def _named(tags: Sequence[str]) -> str:
    return f" ({', '.join(tags)})" if tags else ""


def _by_chance(evaluation: Evaluation) -> float:
    """Return the macro calibration error that perfectly calibrated scores have by chance, as the mean of some draws."""
    rng = np.random.default_rng(bootstrap.SEED)
    scores = evaluation.scores
    truths = (rng.random(scores.shape) < scores for _ in range(100))
    return float(np.mean([metrics.macro(metrics.expected_calibration_error(truth, scores)) for truth in truths]))
