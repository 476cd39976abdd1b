"""Draw a taggram: scores over time, one ribbon per tag (the name is from Pons & Serra, 2019).

The colours are matplotlib's "magma", whose lightness rises evenly, also in grey and for colour-blind readers.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from musictag.evaluation.report import short, text_width

Float32 = npt.NDArray[np.float32]

COLOURS = "magma"
PAPER, INK, FAINT = "#17161F", "#F2EFE9", "#9A97A0"
WIDTH, HEADER, MARGIN = 12.0, 1.0, 0.25  # inches
MAX_TAG_COLUMNS = 28
"""Longest tag that is shown in full; a wide character, such as a Chinese one, takes two columns."""
MAX_TITLE_LENGTH = 80
MAX_TICKS = 9
MAX_IN_SECONDS_S = 90
"""Longest track whose time axis is in seconds, s."""
LAST_RESORT = "Last Resort"
"""The font in matplotlib that has a box for every character."""
TICK_STEPS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
MIN_BRIGHTEST = 0.2
"""Lower bound of the score with the brightest colour, so that a track without any tag stays dark."""


def draw(
    clip_scores: Float32,
    track_scores: Float32,
    tags: Sequence[str],
    start_s: Sequence[float],
    duration_s: float,
    clip_s: float,
    *,
    title: str,
    subtitle: str,
) -> Figure:
    """Draw the scores of some tags of one track.

    Args:
        clip_scores: (C, K), in the order of time and of `tags`; the first tag is drawn on top.
        track_scores: (K,), written to the right of the ribbons.
        tags: names of the ribbons.
        start_s: start of each clip (C,), s.
        duration_s: length of the track, s.
        clip_s: length of a clip, s. Nothing is drawn where no clip is.
        title: name of the track.
        subtitle: name of the model.
    """
    title = short(title, MAX_TITLE_LENGTH)
    names = [short(tag, MAX_TAG_COLUMNS * len(tag) // text_width(tag)) for tag in tags]
    text: dict[str, Any] = {"fontfamily": families("".join([title, subtitle, *names])), "parse_math": False}
    height = HEADER + 1.0 + 0.42 * len(tags)
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER)
    rect = (MARGIN / WIDTH, MARGIN / height, 1 - 2 * MARGIN / WIDTH, 1 - (HEADER + MARGIN) / height)
    figure.set_layout_engine("constrained", rect=rect)
    axes = figure.subplots()
    axes.set_facecolor(PAPER)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=8)

    ribbons = _draw_ribbons(axes, *_with_gaps(clip_scores, start_s, duration_s, clip_s))
    axes.set_xlim(0, duration_s)
    axes.set_yticks(range(len(tags)), names, fontsize=13, color=INK, **text)
    _draw_track_scores(axes, track_scores)
    _draw_time_axis(axes, duration_s)
    bar = figure.colorbar(ribbons, ax=axes, fraction=0.025, pad=0.02, aspect=2 * len(tags))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=FAINT, labelsize=10)
    bar.set_label("score", fontsize=10, color=FAINT, labelpad=8)
    # As large as fits: a wide character takes two columns, and a column is 0.6 of the font size wide.
    size = min(20.0, 72 * (WIDTH - 2 * MARGIN) / (0.6 * text_width(title)))
    figure.text(MARGIN / WIDTH, 1 - 0.5 / height, title, fontsize=size, color=INK, **text)
    figure.text(MARGIN / WIDTH, 1 - 0.8 / height, subtitle, fontsize=11, color=FAINT, **text)
    return figure


def _with_gaps(
    clip_scores: Float32, start_s: Sequence[float], duration_s: float, clip_s: float
) -> tuple[Float32, npt.NDArray[np.float64]]:
    """Return scores with a row of NaN for each gap between clips, and the edges of the rows, s."""
    rows, edges = [], []
    for scores, begin, end in zip(clip_scores, start_s, [*start_s[1:], duration_s], strict=True):
        rows.append(scores)
        edges.append(begin)
        if end - begin > 1.5 * clip_s:  # clips that touch damage are left out
            rows.append(np.full_like(scores, np.nan))
            edges.append(begin + clip_s)
    return np.array(rows), np.array([*edges, duration_s])


def _draw_ribbons(axes: Axes, clip_scores: Float32, edges_s: npt.NDArray[np.float64]) -> QuadMesh:
    """Draw scores (C, K) as one row of colours per tag, of clips between the edges (C + 1,), s; nothing for NaN."""
    n_tags = clip_scores.shape[1]
    brightest = max(MIN_BRIGHTEST, math.ceil(10 * float(np.nanmax(clip_scores))) / 10)
    ribbons = axes.pcolormesh(
        edges_s, np.arange(n_tags + 1) - 0.5, clip_scores.T, cmap=COLOURS, vmin=0, vmax=brightest, rasterized=True
    )
    gaps = np.arange(1, n_tags) - 0.5
    axes.hlines(gaps, 0, 1, transform=axes.get_yaxis_transform(), color=PAPER, linewidth=3)
    axes.set_ylim(n_tags - 0.5, -0.5)
    return ribbons


def _draw_track_scores(axes: Axes, track_scores: Float32) -> None:
    row_transform = axes.get_yaxis_transform()  # x from 0 to 1 over the width, y in rows
    for row, score in enumerate(track_scores):
        axes.text(1.012, row, f"{score:.2f}", transform=row_transform, va="center", fontsize=11, color=FAINT)
    axes.text(1.012, -0.6, "track", transform=row_transform, va="bottom", fontsize=10, color=FAINT)


def _draw_time_axis(axes: Axes, duration_s: float) -> None:
    step = tick_step(duration_s)
    ticks = np.arange(0, duration_s + step / 100, step)
    axes.set_xticks(ticks, [clock(float(tick), duration_s) for tick in ticks], fontsize=11, color=INK)
    axes.set_xlabel(clock_name(duration_s), fontsize=11, color=FAINT, labelpad=8)


def tick_step(duration_s: float) -> float:
    """Return the smallest of `TICK_STEPS_S` that gives at most `MAX_TICKS` ticks."""
    return next((step for step in TICK_STEPS_S if duration_s / step <= MAX_TICKS), math.ceil(duration_s / MAX_TICKS))


def clock(second: float, duration_s: float) -> str:
    """Format a time within a track of this length, in the unit of `clock_name`."""
    if duration_s <= MAX_IN_SECONDS_S:
        return f"{second:.3g}"
    minutes, seconds = divmod(round(second), 60)
    hours, of_hour = divmod(minutes, 60)
    return f"{hours}:{of_hour:02d}:{seconds:02d}" if duration_s >= 3600 else f"{minutes}:{seconds:02d}"


def clock_name(duration_s: float) -> str:
    """Return the unit of the time axis of a track of this length."""
    if duration_s <= MAX_IN_SECONDS_S:
        return "seconds"
    return "hours:minutes:seconds" if duration_s >= 3600 else "minutes:seconds"


def families(text: str) -> list[str]:
    """Return font families that together have all characters of the text; boxes stand for the ones no font has."""
    missing = {ord(character) for character in text} - _characters(font_manager.findfont("DejaVu Sans"))
    found = ["DejaVu Sans"]
    fonts = sorted(font_manager.fontManager.ttflist, key=lambda font: font.name.startswith(LAST_RESORT))
    for font in fonts if missing else ():
        if has := missing & _characters(font.fname):
            missing -= has
            found.append(font.name)
    return found


def _characters(path: str) -> set[int]:
    return set(font_manager.get_font(path).get_charmap())
