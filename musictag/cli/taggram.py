"""The taggram: scores over time as a picture, one ribbon per tag (Pons & Serra, 2019, give it its name).

The colours are those of matplotlib's "magma": even to the eye from dark to bright, in grey and to colour-blind readers.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import font_manager
from matplotlib.figure import Figure

from musictag.evaluation.report import short, text_width

Float32 = npt.NDArray[np.float32]

COLOURS = "magma"
PAPER, INK, FAINT = "#17161F", "#F2EFE9", "#9A97A0"
WIDTH, HEADER, MARGIN = 12.0, 1.0, 0.25  # inches
# Of a tag: columns, of which a wide character takes two. Of a title: characters.
LONGEST_TAG, LONGEST_TITLE = 28, 80
MOST_TICKS = 9
LONGEST_IN_SECONDS_S = 90
# The font of matplotlib's own that has a box for every character there is.
LAST_RESORT = "Last Resort"
# Distances of ticks that a clock's reader expects, s.
TICKS_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
# The least that the brightest colour stands for: the noise of a track without any tag stays dark.
LEAST_BRIGHT = 0.2


def draw(
    clip_scores: Float32,
    track_scores: Float32,
    tags: Sequence[str],
    start_s: Sequence[float],
    duration_s: float,
    *,
    title: str,
    subtitle: str,
) -> Figure:
    """The picture of some tags of one track.

    Args:
        clip_scores: (C, K), in the order of time and of `tags`; the first tag is drawn on top.
        track_scores: (K,), written beside the ribbons.
        tags: what the ribbons are called.
        start_s: where each clip begins (C,), s: it lasts until the next one, the last until the end of the track.
        duration_s: length of the track, s.
        title: what was heard.
        subtitle: whose tags they are.
    """
    n_tags = len(tags)
    title, names = short(title, LONGEST_TITLE), [short(tag, LONGEST_TAG * len(tag) // text_width(tag)) for tag in tags]
    text: dict[str, Any] = {"fontfamily": families("".join([title, subtitle, *names])), "parse_math": False}
    height = HEADER + 1.0 + 0.42 * n_tags
    figure = Figure(figsize=(WIDTH, height), facecolor=PAPER)
    inside = (MARGIN / WIDTH, MARGIN / height, 1 - 2 * MARGIN / WIDTH, 1 - (HEADER + MARGIN) / height)
    figure.set_layout_engine("constrained", rect=inside)
    axes = figure.subplots()
    axes.set_facecolor(PAPER)

    edges = np.append(start_s, duration_s)
    brightest = max(LEAST_BRIGHT, math.ceil(10 * float(clip_scores.max())) / 10)
    mesh = axes.pcolormesh(
        edges, np.arange(n_tags + 1) - 0.5, clip_scores.T, cmap=COLOURS, vmin=0, vmax=brightest, rasterized=True
    )
    across = axes.get_yaxis_transform()  # x from 0 to 1 over the width, y in rows
    axes.hlines(np.arange(1, n_tags) - 0.5, 0, 1, transform=across, color=PAPER, linewidth=3)
    axes.set(xlim=(0, duration_s), ylim=(n_tags - 0.5, -0.5))
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, pad=8)
    axes.set_yticks(range(n_tags), names, fontsize=13, color=INK, **text)
    for row, score in enumerate(track_scores):
        axes.text(1.012, row, f"{score:.2f}", transform=across, va="center", fontsize=11, color=FAINT)
    axes.text(1.012, -0.6, "track", transform=across, va="bottom", fontsize=10, color=FAINT)

    step = tick_step(duration_s)
    ticks = np.arange(0, duration_s + step / 100, step)
    axes.set_xticks(ticks, [clock(float(tick), duration_s) for tick in ticks], fontsize=11, color=INK)
    axes.set_xlabel(clock_name(duration_s), fontsize=11, color=FAINT, labelpad=8)

    bar = figure.colorbar(mesh, ax=axes, fraction=0.025, pad=0.02, aspect=2 * n_tags)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0, labelcolor=FAINT, labelsize=10)
    bar.set_label("score", fontsize=10, color=FAINT, labelpad=8)

    left = MARGIN / WIDTH
    # As large as fits: a wide character takes two columns, a column of the font is 0.6 of its size.
    size = min(20.0, 72 * (WIDTH - 2 * MARGIN) / (0.6 * text_width(title)))
    figure.text(left, 1 - 0.5 / height, title, fontsize=size, color=INK, **text)
    figure.text(left, 1 - 0.8 / height, subtitle, fontsize=11, color=FAINT, **text)
    return figure


def tick_step(duration_s: float) -> float:
    """Distance of the ticks of a time axis, s: the least of `TICKS_S` that gives no more than `MOST_TICKS`."""
    return next((step for step in TICKS_S if duration_s / step <= MOST_TICKS), math.ceil(duration_s / MOST_TICKS))


def clock(second: float, duration_s: float) -> str:
    """A time within a track of this length, as `clock_name` says."""
    if duration_s <= LONGEST_IN_SECONDS_S:
        return f"{second:.3g}"
    minutes, seconds = divmod(round(second), 60)
    hours, of_hour = divmod(minutes, 60)
    return f"{hours}:{of_hour:02d}:{seconds:02d}" if duration_s >= 3600 else f"{minutes}:{seconds:02d}"


def clock_name(duration_s: float) -> str:
    """What the times of a track of this length are written in."""
    if duration_s <= LONGEST_IN_SECONDS_S:
        return "seconds"
    return "hours:minutes:seconds" if duration_s >= 3600 else "minutes:seconds"


def families(text: str) -> list[str]:
    """Font families that together have all of the text's characters; boxes where no installed font has any."""
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
