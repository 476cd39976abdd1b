"""Plain-text reports of evaluations and comparisons for the terminal."""

import math
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from musictag.evaluation import bootstrap, metrics
from musictag.evaluation.results import WITH_INTERVAL, Evaluation, per_tag, summary

UNDEFINED = "\u2013"
SHOWN_INTERVALS = ("f1", "pr_auc")
"""Figures whose intervals are shown in the table of an evaluation."""
TITLES = {"pr_auc": "PR-AUC", "roc_auc": "ROC-AUC", "f1": "F1"}
"""The figures of a comparison and their headings."""


def format_table(table: pa.Table, rules: tuple[int, ...] = ()) -> str:
    """Format a table: a heading, a rule, a line per row; numbers right-aligned with 3 decimals, NaN as a dash.

    Args:
        table: columns of text or numbers.
        rules: indices of rows before which another rule is drawn.
    """
    columns = []
    for name, column in zip(table.column_names, table.columns, strict=True):  # names need not be unique
        values = column.to_pylist()
        cells = [name, *map(cell, values)]
        width = max(map(text_width, cells))
        left = any(isinstance(value, str) for value in values)
        columns.append([_pad(cell, width, left) for cell in cells])
    heading, *lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    rule = "\u2500" * max(map(text_width, [heading, *lines]))
    for row in sorted(rules, reverse=True):
        lines.insert(row, rule)
    return "\n".join([heading, rule, *lines])


def evaluation_report(evaluation: Evaluation) -> str:
    """Return the per-tag table with a macro and a micro row, and remarks below it."""
    rows = per_tag(evaluation)
    values = summary(evaluation)
    n_positive = int(evaluation.targets.sum())
    averages = [
        {
            "tag": name,
            "support": n_positive,
            **{figure: values.get(f"{name}_{figure}") for figure in rows.column_names[2:]},
        }
        for name in ("macro", "micro")
    ]
    table = pa.concat_tables([rows, pa.Table.from_pylist(averages, schema=rows.schema)])
    for name in WITH_INTERVAL:
        ends = table.select([f"{name}_low", f"{name}_high"]).rename_columns(["low", "high"]).to_pylist()
        table = table.drop_columns([f"{name}_low", f"{name}_high"])
        if name in SHOWN_INTERVALS:
            place, shown = table.column_names.index(name) + 1, pa.array(map(_range, ends), pa.string())
            table = table.add_column(place, f"{name} (95 %)", shown)
    n_tracks, n_tags = evaluation.targets.shape
    n_predicted = int(metrics.apply_thresholds(evaluation.scores, evaluation.thresholds).sum())
    lines = [
        f"{n_tracks} tracks of the {evaluation.split} split, {n_tags} tags; "
        f"{n_predicted} tags given, {n_positive} true. {UNDEFINED}: undefined on these tracks.",
        _about_intervals(len(set(evaluation.groups))),
    ]
    if absent := [row["tag"] for row in rows.to_pylist() if row["support"] == 0]:
        lines.append(f"No {evaluation.split} track has {', '.join(absent)}: their figures are undefined.")
    return "\n".join([format_table(table, rules=(n_tags,)), "", *lines])


def examples(evaluation: Evaluation, names: Mapping[str, str], n_tracks: int = 8) -> str:
    """Return the given tags of some evenly spaced tracks, best first; wrong tags in brackets.

    Args:
        evaluation: the evaluation.
        names: track_id to name; a track without a name is shown by its id.
        n_tracks: maximum number of tracks.
    """
    predicted = metrics.apply_thresholds(evaluation.scores, evaluation.thresholds)
    shown = np.unique(np.linspace(0, len(evaluation.track_ids) - 1, n_tracks).astype(int))
    unseen = ", which was used neither for training nor for tuning" if evaluation.split == "test" else ""
    lines = [f"Tracks of the {evaluation.split} split{unseen}. [Brackets]: a tag that is not true."]
    for n in shown:
        track_id, truth, scores = evaluation.track_ids[n], evaluation.targets[n], evaluation.scores[n]
        order = [k for k in np.argsort(-scores) if predicted[n, k]]
        tags = [f"{evaluation.vocabulary[k]} {scores[k]:.2f}" for k in order]
        marked = [tag if truth[k] else f"[{tag}]" for tag, k in zip(tags, order, strict=True)]
        missed = [evaluation.vocabulary[k] for k in np.flatnonzero(truth & ~predicted[n])]
        lines.append(f"  {names.get(track_id) or track_id}")
        lines.append(f"    {', '.join(marked) or 'no tag'}" + (f"; missed: {', '.join(missed)}" if missed else ""))
    return "\n".join(lines)


def comparison(table: pa.Table, names: tuple[str, str]) -> str:
    """Return a table of differences for each figure, and the number of tags that are better and worse.

    Args:
        table: the result of `comparison.compare`.
        names: how to name the candidate and the champion.
    """
    rows = table.to_pylist()
    blocks = [_block([row for row in rows if row["figure"] == name], title, names) for name, title in TITLES.items()]
    ece = next(row for row in rows if row["figure"] == "ece")
    lines = [
        f"Calibration error of all decisions: {cell(ece['candidate'])} against {cell(ece['champion'])}, "
        f"difference {_signed(ece['difference'])} (95 %: {_range(ece, _signed)})."
    ]
    if all(math.isnan(row["difference"]) for row in rows):
        lines.append("The two models share no tag that these tracks have: nothing is compared.")
    elif all(math.isnan(row["low"]) for row in rows):
        lines.append(_about_intervals(1))
    else:
        lines.append(
            f"95 %: intervals by paired bootstrap over artists, {bootstrap.N_DRAWS} draws; * where they exclude 0."
        )
    return "\n\n".join([*blocks, "\n".join(lines)])


def short(tag: str, longest: int) -> str:
    """Shorten a tag to at most `longest` characters with an ellipsis."""
    return tag if len(tag) <= longest else tag[: longest - 1].rstrip() + "\u2026"


def cell(value: Any) -> str:
    """Return a value as it is shown in tables."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNDEFINED
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _block(rows: list[dict[str, Any]], title: str, names: tuple[str, str]) -> str:
    """Return the table of one figure and a line with counts."""
    headings = (title, *names, "difference", "95 %", "")
    columns = [
        ["macro" if row["tag"] is None else row["tag"] for row in rows],
        [row["candidate"] for row in rows],
        [row["champion"] for row in rows],
        [_signed(row["difference"]) for row in rows],
        [_range(row, _signed) for row in rows],
        ["*" if row["clear"] else "" for row in rows],
    ]
    *tags, _ = rows  # the last row is the macro value
    better, worse = ([row for row in tags if sign * row["difference"] > 0] for sign in (1, -1))
    return (
        f"{format_table(pa.table(columns, headings), rules=(len(tags),))}\n"
        f"{title}: {len(better)} of {len(tags)} tags better ({sum(row['clear'] for row in better)} with an interval "
        f"above 0), {len(worse)} worse ({sum(row['clear'] for row in worse)} with an interval below 0)."
    )


def _about_intervals(n_groups: int) -> str:
    if n_groups < 2:
        return "No 95 % intervals: all tracks are of one artist, so chance cannot be estimated."
    return f"95 %: intervals by bootstrap over {n_groups} artists, {bootstrap.N_DRAWS} draws."


def _range(row: Mapping[str, float | None], text: Callable[[float], str] = "{:.2f}".format) -> str:
    low, high = row["low"], row["high"]
    return UNDEFINED if low is None or high is None or math.isnan(low) else f"{text(low)} to {text(high)}"


def _signed(value: float) -> str:
    return UNDEFINED if math.isnan(value) else f"{value:+.3f}"


def text_width(text: str) -> int:
    """Return the width of a text in terminal columns; East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _pad(cell: str, width: int, left: bool) -> str:
    fill = " " * (width - text_width(cell))
    return cell + fill if left else fill + cell
