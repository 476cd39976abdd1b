import numpy as np
import pytest
from matplotlib.colors import Colormap
from matplotlib.image import imread

from musictag.cli import taggram
from musictag.evaluation.charts import save_figure

CLIP_S = 2.992


def draw(tags, n_clips, duration_s, title="song.mp3"):
    clip_scores = np.random.default_rng(0).random((n_clips, len(tags)), np.float32)
    start_s = [clip * CLIP_S for clip in range(n_clips)]
    track_scores = clip_scores.mean(axis=0)
    return clip_scores, taggram.draw(
        clip_scores, track_scores, tags, start_s, duration_s, CLIP_S, title=title, subtitle="tags by a model"
    )


def texts(figure):
    return [text.get_text() for text in [*figure.texts, *figure.axes[0].texts]]


def test_scores_are_drawn_at_their_tag_and_time():
    clip_scores, figure = draw(["piano", "slow", "drums"], 4, 10.0)
    axes, bar = figure.axes
    (mesh,) = [artist for artist in axes.collections if hasattr(artist, "get_coordinates")]
    np.testing.assert_array_equal(mesh.get_array(), clip_scores.T)
    corners = mesh.get_coordinates()
    np.testing.assert_allclose(corners[0, :, 0], [0, CLIP_S, 2 * CLIP_S, 3 * CLIP_S, 10.0])
    np.testing.assert_allclose(corners[:, 0, 1], [-0.5, 0.5, 1.5, 2.5])
    assert axes.get_xlim() == (0, 10.0)
    assert axes.get_ylim() == (2.5, -0.5)  # downwards: the first tag is on top
    assert [label.get_text() for label in axes.get_yticklabels()] == ["piano", "slow", "drums"]
    assert list(axes.get_yticks()) == [0, 1, 2]
    assert bar.get_ylabel() == "score"
    assert {"song.mp3", "tags by a model", *(f"{score:.2f}" for score in clip_scores.mean(axis=0))} <= set(
        texts(figure)
    )


def test_nothing_is_drawn_where_a_clip_is_left_out():
    scores = np.array([[0.1], [0.2], [0.3]], np.float32)
    start_s = [CLIP_S, 4 * CLIP_S, 5 * CLIP_S]
    figure = taggram.draw(scores, scores[0], ["a"], start_s, 6 * CLIP_S, CLIP_S, title="t", subtitle="s")
    (mesh,) = [artist for artist in figure.axes[0].collections if hasattr(artist, "get_coordinates")]
    np.testing.assert_allclose(mesh.get_coordinates()[0, :, 0], np.array([1, 2, 4, 5, 6]) * CLIP_S)
    np.testing.assert_array_equal(mesh.get_array().filled(-1), np.array([[0.1, -1, 0.2, 0.3]], np.float32))
    assert figure.axes[0].get_xlim() == (0, 6 * CLIP_S)


def test_brightest_colour_is_the_best_score_rounded_up_and_at_least_0_2():
    for score, brightest in ((0.42, 0.5), (0.03, 0.2), (0.97, 1.0)):
        scores = np.full((1, 1), score, np.float32)
        figure = taggram.draw(scores, scores[0], ["a"], [0.0], 3.0, CLIP_S, title="t", subtitle="s")
        (mesh,) = [artist for artist in figure.axes[0].collections if hasattr(artist, "get_coordinates")]
        assert mesh.get_clim() == (0, pytest.approx(brightest))


def test_luminance_rises_with_the_score():
    _, figure = draw(["a"], 2, 5.0)
    colours = figure.axes[0].collections[0].get_cmap()
    assert isinstance(colours, Colormap)
    luminance = colours(np.linspace(0, 1, 64))[:, :3] @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(luminance) > 0).all()


@pytest.mark.parametrize(
    ("duration_s", "labels", "name"),
    [
        (1.0, ["0", "0.2", "0.4", "0.6", "0.8", "1"], "seconds"),
        (0.05, ["0", "0.01", "0.02", "0.03", "0.04", "0.05"], "seconds"),
        (30.0, ["0", "5", "10", "15", "20", "25", "30"], "seconds"),
        (240.0, ["0:00", "0:30", "1:00", "1:30", "2:00", "2:30", "3:00", "3:30", "4:00"], "minutes:seconds"),
        (3600.0, ["0:00:00", "0:10:00", "0:20:00", "0:30:00", "0:40:00", "0:50:00", "1:00:00"],
         "hours:minutes:seconds"),
    ],
)  # fmt: skip
def test_time_axis_has_round_steps_and_a_unit(duration_s, labels, name):
    _, figure = draw(["a"], max(1, int(np.ceil(duration_s / CLIP_S))), duration_s)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == labels
    assert axes.get_xlabel() == name


def test_track_of_a_day_has_few_ticks():
    assert 86_400 / taggram.tick_step(86_400) <= taggram.MAX_TICKS


@pytest.mark.slow
@pytest.mark.parametrize(("n_clips", "duration_s"), [(1, 0.5), (3, 2 * CLIP_S), (1204, 3600.0)])
@pytest.mark.parametrize("tag", ["爵士音乐" * 10, "a tag of $many$ words, none of which can go " * 3, "🎷"])
def test_long_and_wide_names_fit_the_picture(tmp_path, n_clips, duration_s, tag):
    _, figure = draw([tag, "slow"], n_clips, duration_s, title=tag + ".mp3")
    save_figure(figure, tmp_path / "a.png")
    picture = imread(tmp_path / "a.png")
    height, width = picture.shape[:2]
    assert width == 1800
    assert height > 300
    paper = picture[0, 0]
    margin = np.concatenate([picture[:, :15].reshape(-1, 4), picture[:, -15:].reshape(-1, 4)])
    np.testing.assert_allclose(margin, np.broadcast_to(paper, margin.shape), atol=0.01)  # nothing is cut off
    left, right = figure.axes[0].get_position().x0, figure.axes[0].get_position().x1
    assert right - left > 0.4  # names leave room for the scores


def test_more_tags_make_a_taller_picture():
    heights = [draw(["a"] * n_tags, 2, 5.0)[1].get_size_inches()[1] for n_tags in (1, 10, 50)]
    assert heights == sorted(set(heights))


def test_other_fonts_are_used_only_for_missing_characters():
    assert taggram.families("naïve über электроника") == ["DejaVu Sans"]
    assert taggram.families("爵士")[0] == "DejaVu Sans"
    assert len(taggram.families("爵士")) > 1
