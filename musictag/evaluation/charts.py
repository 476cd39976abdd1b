"""Charts of evaluations and comparisons.

They are matplotlib `Figure` objects, created without pyplot's global state. Colours are those of Okabe and Ito
("Color universal design", 2008), which colour-blind readers can tell apart; shapes differ as well.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from musictag.evaluation.report import cell, short
from musictag.evaluation.results import Evaluation, per_tag

BLUE, ORANGE, GREY = "#0072B2", "#E69F00", "#8A8A8A"
CURVES_PER_ROW = 5
LONGEST_LABEL = 32


def precision_recall_chart(evaluation: Evaluation) -> Figure:
    """Draw precision and recall of each tag as two marks on a line; tags are sorted by F1, undefined ones last."""
    table = per_tag(evaluation).to_pydict()
    f1 = np.nan_to_num(table["f1"], nan=-1.0)
    order = np.lexsort((table["tag"], -f1))[::-1]  # from the bottom of the chart
    n_tags = len(order)
    precision, recall = np.array(table["precision"])[order], np.array(table["recall"])[order]
    rows = np.arange(n_tags)

    figure = Figure(figsize=(8, 1.5 + 0.27 * n_tags), layout="constrained")
    axes = figure.subplots()
    _dumbbells(axes, rows, precision, recall, ("precision", "recall"))
    labels = [f"{short(table['tag'][k], LONGEST_LABEL)}  ({table['support'][k]})" for k in order]
    axes.set_yticks(rows, labels, parse_math=False)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.8, n_tags - 0.2), xlabel="precision, recall")
    figure.suptitle(
        f"Precision and recall by tag: {len(evaluation.track_ids)} tracks of the {evaluation.split} split",
        parse_math=False,
    )
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def comparison_chart(candidate: Evaluation, champion: Evaluation, names: tuple[str, str]) -> Figure:
    """Draw precision and recall of each tag by two models on the same tracks, sorted by the candidate's F1.

    A tag that one model does not know has no mark of it. `names` is what to call the two.
    """
    tables = [{row["tag"]: row for row in per_tag(each).to_pylist()} for each in (candidate, champion)]
    # from the bottom of the chart
    tags = sorted({*tables[0], *tables[1]}, key=lambda tag: (-_rank(tables[0].get(tag)), tag))[::-1]
    rows = np.arange(len(tags))
    figure = Figure(figsize=(10, 1.6 + 0.27 * len(tags)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name in zip(panels, ("precision", "recall"), strict=True):
        first, second = (np.array([table.get(tag, {}).get(name, math.nan) for tag in tags]) for table in tables)
        _dumbbells(axes, rows, first, second, names)
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.8, len(tags) - 0.2), xlabel=name)
    known = {**tables[1], **tables[0]}
    labels = [f"{short(tag, LONGEST_LABEL)}  ({known[tag]['support']})" for tag in tags]
    panels[0].set_yticks(rows, labels, parse_math=False)
    figure.suptitle(
        f"Precision and recall by tag: {len(candidate.track_ids)} tracks of the {candidate.split} split",
        parse_math=False,
    )
    marks, texts = panels[0].get_legend_handles_labels()
    figure.legend(marks, texts, loc="outside lower center", ncols=2, frameon=False)
    return figure


def curves_chart(evaluation: Evaluation) -> Figure:
    """Draw the precision-recall curve of each tag; a dot marks the tag's threshold."""
    from sklearn.metrics import precision_recall_curve  # imported here: it takes 2 s, and a taggram does not need it

    table = per_tag(evaluation).to_pydict()
    n_tags = len(table["tag"])
    n_columns = min(CURVES_PER_ROW, n_tags)
    n_rows = math.ceil(n_tags / n_columns)
    width, height = max(2.1 * n_columns + 0.7, 5.0), 2.1 * n_rows + 1.1  # inches
    figure = Figure(figsize=(width, height))
    # Margins are set by hand because the automatic layout takes seconds for dozens of panels.
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
            f"{short(table['tag'][k], 22)}\n{cell(table['pr_auc'][k])}  ({table['support'][k]})",
            fontsize=9,
            parse_math=False,
        )
        if not truth.any():
            axes.text(0.5, 0.5, "no positive track", ha="center", va="center", fontsize=8, color=GREY)
            continue
        precision, recall, _ = precision_recall_curve(truth, evaluation.scores[:, k])
        precision[-1] = precision[-2]  # scikit-learn appends (recall 0, precision 1), which no threshold reaches
        axes.axhline(truth.mean(), color=GREY, linewidth=1, linestyle=":")
        axes.step(recall, precision, where="post", color=BLUE, linewidth=1.5)
        axes.plot(table["recall"][k], table["precision"][k], "o", color=ORANGE, markeredgecolor="black")
    for axes in grid.flat[n_tags - n_columns : n_tags]:  # the lowest panel of each column
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
    """Write a figure in the format of the suffix (.png, .svg, .pdf); create missing folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _dumbbells(
    axes: Axes, rows: NDArray[np.int64], first: NDArray[Any], second: NDArray[Any], names: tuple[str, str]
) -> None:
    """Draw two values from 0 to 1 for each row as marks on a line."""
    axes.hlines(rows, np.fmin(first, second), np.fmax(first, second), color="#C8C8C8", linewidth=2, zorder=1)
    # The second mark is larger and hollow, so that both are visible if they coincide.
    axes.scatter(first, rows, s=30, color=BLUE, label=names[0], zorder=3)
    axes.scatter(
        second, rows, s=70, marker="D", facecolor="white", edgecolor=ORANGE, linewidth=2, label=names[1], zorder=2
    )
    axes.grid(axis="x", color="#E6E6E6")
    _plain(axes)


def _rank(row: Mapping[str, Any] | None) -> float:
    """Return F1 for sorting: undefined values before 0, unknown tags before them."""
    if row is None:
        return -2.0
    return -1.0 if math.isnan(row["f1"]) else float(row["f1"])


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=0)
    axes.set_axisbelow(True)
