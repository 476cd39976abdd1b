"""What a person sees of an evaluation: plain-text tables for the terminal, charts for the eye.

Charts are matplotlib `Figure` objects, made without pyplot and its global state. Colours are those of Okabe and Ito
("Color universal design", 2008), which colour-blind readers can tell apart; shapes differ as well.
"""

import math
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from musictag import metrics
from musictag.evaluation import FIGURES, Evaluation, per_tag, summary

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#8A8A8A"
UNDEFINED = "\u2013"
CURVES_PER_ROW = 5
LONGEST_LABEL = 32


def format_table(table: pa.Table, rules: tuple[int, ...] = ()) -> str:
    """Aligned plain text: a heading, a rule, one line per row; numbers right-aligned with 3 decimals, NaN as a dash.

    Args:
        table: columns of text or numbers.
        rules: rows before which a further rule is drawn.
    """
    columns = []
    for name in table.column_names:
        values = table[name].to_pylist()
        cells = [name, *map(_cell, values)]
        width = max(map(text_width, cells))
        left = any(isinstance(value, str) for value in values)
        columns.append([_pad(cell, width, left) for cell in cells])
    heading, *lines = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    rule = "\u2500" * max(map(text_width, [heading, *lines]))
    for row in sorted(rules, reverse=True):
        lines.insert(row, rule)
    return "\n".join([heading, rule, *lines])


def evaluation_report(evaluation: Evaluation) -> str:
    """The per-tag table, a macro and a micro row, and a line with the numbers of tracks and tags."""
    rows = per_tag(evaluation)
    values = summary(evaluation)
    n_positive = int(evaluation.targets.sum())
    averages = [
        {"tag": name, "support": n_positive, **{figure: values[f"{name}_{figure}"] for figure in FIGURES}}
        for name in ("macro", "micro")
    ]
    table = pa.concat_tables([rows, pa.Table.from_pylist(averages, schema=rows.schema)])
    n_tracks, n_tags = evaluation.targets.shape
    n_given = int(metrics.give(evaluation.scores, evaluation.thresholds).sum())
    return (
        f"{format_table(table, rules=(n_tags,))}\n\n"
        f"{n_tracks} tracks of the {evaluation.split} split, {n_tags} tags; "
        f"{n_given} tags given, {n_positive} true. {UNDEFINED} is what these tracks do not define."
    )


def examples(evaluation: Evaluation, names: Mapping[str, str], n_tracks: int = 8) -> str:
    """The tags given to some tracks, evenly taken from all, best first; those that are not true in brackets.

    Args:
        evaluation: what was scored.
        names: what to call each track, by its id; a track without a name is called by its id.
        n_tracks: how many to show, at most.
    """
    given = metrics.give(evaluation.scores, evaluation.thresholds)
    shown = np.unique(np.linspace(0, len(evaluation.track_ids) - 1, n_tracks).astype(int))
    lines = [f"Tracks of the {evaluation.split} split, which the model never saw. [Brackets]: a tag that is not true."]
    for n in shown:
        track_id, truth, scores = evaluation.track_ids[n], evaluation.targets[n], evaluation.scores[n]
        order = [k for k in np.argsort(-scores) if given[n, k]]
        tags = [f"{evaluation.vocabulary[k]} {scores[k]:.2f}" for k in order]
        marked = [tag if truth[k] else f"[{tag}]" for tag, k in zip(tags, order, strict=True)]
        missed = [evaluation.vocabulary[k] for k in np.flatnonzero(truth & ~given[n])]
        lines.append(f"  {names.get(track_id) or track_id}")
        lines.append(f"    {', '.join(marked) or 'no tag'}" + (f"; missed: {', '.join(missed)}" if missed else ""))
    return "\n".join(lines)


def comparison(evaluations: Mapping[str, Evaluation]) -> str:
    """PR-AUC of each tag by two or more models on the same tracks, and their macro figures."""
    tables = {name: per_tag(evaluation) for name, evaluation in evaluations.items()}
    tags = sorted(set().union(*(table["tag"].to_pylist() for table in tables.values())))
    columns: dict[str, list[Any]] = {"PR-AUC": [*tags, "macro PR-AUC", "macro ROC-AUC", "macro F1"]}
    for name, table in tables.items():
        of_tag = dict(zip(table["tag"].to_pylist(), table["pr_auc"].to_pylist(), strict=True))
        values = summary(evaluations[name])
        columns[name] = [
            *(of_tag.get(tag) for tag in tags),
            *(values[f"macro_{figure}"] for figure in ("pr_auc", "roc_auc", "f1")),
        ]
    return format_table(pa.table(columns), rules=(len(tags),))


def precision_recall_chart(evaluation: Evaluation) -> Figure:
    """Precision and recall of each tag as two marks on one line; the tag of the best F1 on top, tags without last."""
    table = per_tag(evaluation).to_pydict()
    f1 = np.nan_to_num(table["f1"], nan=-1.0)
    order = np.lexsort((table["tag"], -f1))[::-1]  # from the bottom of the chart
    n_tags = len(order)
    precision, recall = np.array(table["precision"])[order], np.array(table["recall"])[order]
    rows = np.arange(n_tags)

    figure = Figure(figsize=(8, 1.5 + 0.27 * n_tags), layout="constrained")
    axes = figure.subplots()
    axes.hlines(rows, np.fmin(precision, recall), np.fmax(precision, recall), color="#C8C8C8", linewidth=2, zorder=1)
    # Recall is the larger, hollow mark, so that both are seen where they coincide.
    axes.scatter(precision, rows, s=30, color=BLUE, label="precision", zorder=3)
    axes.scatter(
        recall, rows, s=70, marker="D", facecolor="white", edgecolor=ORANGE, linewidth=2, label="recall", zorder=2
    )
    labels = [f"{short(table['tag'][k], LONGEST_LABEL)}  ({table['support'][k]})" for k in order]
    axes.set_yticks(rows, labels, parse_math=False)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.8, n_tags - 0.2), xlabel="precision, recall")
    axes.grid(axis="x", color="#E6E6E6")
    _plain(axes)
    figure.suptitle(
        f"Precision and recall by tag: {len(evaluation.track_ids)} tracks of the {evaluation.split} split",
        parse_math=False,
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def curves_chart(evaluation: Evaluation) -> Figure:
    """Precision over recall of each tag at every threshold; a dot where the tag's own threshold puts it."""
    from sklearn.metrics import precision_recall_curve  # here: it takes 2 s, and a taggram needs none of it

    table = per_tag(evaluation).to_pydict()
    n_tags = len(table["tag"])
    n_columns = min(CURVES_PER_ROW, n_tags)
    n_rows = math.ceil(n_tags / n_columns)
    width, height = max(2.1 * n_columns + 0.7, 5.0), 2.1 * n_rows + 1.1  # inches
    figure = Figure(figsize=(width, height))
    # Margins by hand: the automatic layout takes seconds for some dozens of panels.
    margins = {"left": 0.6 / width, "right": 1 - 0.1 / width, "bottom": 0.55 / height, "top": 1 - 0.9 / height}
    grid = figure.subplots(
        n_rows,
        n_columns,
        sharex=True,
        sharey=True,
        squeeze=False,
        gridspec_kw={**margins, "wspace": 0.1, "hspace": 0.4},
    )
    grid[0, 0].set(xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))  # all panels share them
    grid[0, 0].set_xticks((0, 0.5, 1), ("0", "0.5", "1"))
    grid[0, 0].set_yticks((0, 0.5, 1), ("0", "0.5", "1"))
    for axes in grid.flat[n_tags:]:
        axes.axis("off")
    for k, axes in enumerate(grid.flat[:n_tags]):
        truth = evaluation.targets[:, k]
        _plain(axes)
        axes.set_title(
            f"{short(table['tag'][k], 22)}\n{_cell(table['pr_auc'][k])}  ({table['support'][k]})",
            fontsize=9,
            parse_math=False,
        )
        if not truth.any():
            axes.text(0.5, 0.5, "no positive track", ha="center", va="center", fontsize=8, color=GREY)
            continue
        precision, recall, _ = precision_recall_curve(truth, evaluation.scores[:, k])
        precision[-1] = precision[-2]  # scikit-learn ends the curve in a point (recall 0, precision 1) that nothing had
        axes.axhline(truth.mean(), color=GREY, linewidth=1, linestyle=":")
        axes.step(recall, precision, where="post", color=BLUE, linewidth=1.5)
        axes.plot(table["recall"][k], table["precision"][k], "o", color=ORANGE, markeredgecolor="black")
    for axes in grid.flat[n_tags - n_columns : n_tags]:  # the lowest of each column, even over an empty place
        axes.tick_params(labelbottom=True)
    figure.supxlabel("recall", fontsize=10, y=0.1 / height)
    figure.supylabel("precision", fontsize=10, x=0.05 / width)
    figure.suptitle(
        f"PR curves with PR-AUC (and positive tracks) of {len(evaluation.track_ids)} {evaluation.split} tracks\n"
        "dot: at the tag's threshold; dotted: chance",
        fontsize=10,
        y=1 - 0.1 / height,
        parse_math=False,
    )
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure; the suffix (.png, .svg, .pdf) says as what. Missing folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)


def short(tag: str, longest: int) -> str:
    """A tag of at most `longest` characters: what is cut off is an ellipsis."""
    return tag if len(tag) <= longest else tag[: longest - 1].rstrip() + "\u2026"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNDEFINED
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def text_width(text: str) -> int:
    """Columns of a terminal: East Asian wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def _pad(cell: str, width: int, left: bool) -> str:
    fill = " " * (width - text_width(cell))
    return cell + fill if left else fill + cell
