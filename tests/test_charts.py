import dataclasses

import numpy as np
import pytest
from matplotlib.image import imread

from musictag import charts
from musictag.evaluation import Evaluation


def evaluate(n_tags, n_tracks=40, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.random((n_tracks, n_tags)) < 0.3
    return Evaluation(
        split="test",
        track_ids=tuple(f"{n}.mp3" for n in range(n_tracks)),
        vocabulary=tuple(f"tag {k:02d}" for k in range(n_tags)),
        groups=tuple(f"artist:{n // 2}" for n in range(n_tracks)),
        targets=targets,
        scores=(0.5 * rng.random((n_tracks, n_tags)) + 0.4 * targets).astype(np.float32),
        raw_scores=(0.9 * targets).astype(np.float32),
        thresholds=np.full(n_tags, 0.45),
    )


BY_HAND = Evaluation(
    split="test",
    track_ids=("a", "b"),
    groups=("artist:x", "artist:x"),
    vocabulary=("jazz", "polka"),
    targets=np.array([[True, False], [False, False]]),
    scores=np.array([[0.9, 0.1], [0.8, 0.2]], np.float32),
    raw_scores=np.array([[1.0, 0.0], [0.5, 0.5]], np.float32),
    thresholds=np.array([0.5, 1.0]),
)


def labels_do_not_overlap(figure, labels):
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
    return not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_precision_recall_labels_are_readable(n_tags):
    figure = charts.precision_recall_chart(evaluate(n_tags))
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == n_tags
    assert labels_do_not_overlap(figure, labels)


def test_the_best_tag_is_on_top_and_undefined_tags_last():
    evaluation = dataclasses.replace(
        evaluate(3),
        targets=np.tile([[True, False, True], [False, False, False]], (20, 1)),
        scores=np.tile(np.array([[0.3, 0.1, 0.9], [0.9, 0.1, 0.1]], np.float32), (20, 1)),
        thresholds=np.array([0.2, 1.0, 0.5]),
    )
    labels = charts.precision_recall_chart(evaluation).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels][::-1] == ["tag 02  (20)", "tag 00  (20)", "tag 01  (0)"]


def test_marks_stand_at_precision_and_recall():
    axes = charts.precision_recall_chart(BY_HAND).axes[0]
    at = {marks.get_label(): marks.get_offsets()[-1].tolist() for marks in axes.collections[1:]}
    assert at == {"precision": [0.5, 1], "recall": [1.0, 1]}


@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_curves_have_a_panel_per_tag_with_readable_titles(n_tags):
    figure = charts.curves_chart(evaluate(n_tags))
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    assert [title.get_text().splitlines()[0] for title in titles] == [f"tag {k:02d}" for k in range(n_tags)]
    assert labels_do_not_overlap(figure, [*titles, figure._suptitle])


def test_a_curve_holds_the_area_it_states():
    axes = charts.curves_chart(evaluate(1)).axes[0]
    recall, precision = axes.lines[1].get_data()
    area = np.sum(-np.diff(recall) * precision[:-1])
    assert axes.get_title().splitlines()[1].startswith(f"{area:.3f}")


def test_a_tag_without_positives_says_so():
    axes = charts.curves_chart(BY_HAND).axes[1]
    assert [text.get_text() for text in axes.texts] == ["no positive track"]
    assert not axes.lines


@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_a_comparison_has_two_panels_of_readable_tags(n_tags):
    figure = charts.comparison_chart(evaluate(n_tags), evaluate(n_tags, seed=1), ("models:/new", "models:/old"))
    assert [axes.get_xlabel() for axes in figure.axes] == ["precision", "recall"]
    labels = figure.axes[0].get_yticklabels()
    alone = charts.precision_recall_chart(evaluate(n_tags)).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [label.get_text() for label in alone]
    assert labels_do_not_overlap(figure, [*labels, figure._suptitle, *figure.legends[0].get_texts()])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["models:/new", "models:/old"]


def test_marks_of_two_models_stand_at_their_precision_and_recall():
    given_to_none = dataclasses.replace(BY_HAND, thresholds=np.array([0.85, 1.0]))
    precision, recall = charts.comparison_chart(BY_HAND, given_to_none, ("new", "old")).axes
    for axes, new, old in ((precision, 1 / 2, 1), (recall, 1, 1)):
        at = {marks.get_label(): marks.get_offsets()[-1].tolist() for marks in axes.collections[1:]}
        assert at == {"new": [new, 1], "old": [old, 1]}


def test_a_tag_that_one_model_does_not_know_has_one_mark():
    other = dataclasses.replace(BY_HAND, vocabulary=("jazz", "rag"))
    panels = charts.comparison_chart(BY_HAND, other, ("same", "same")).axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["rag  (0)", "polka  (0)", "jazz  (1)"]
    for axes in panels:
        for marks in axes.collections[1:]:
            assert np.isfinite(marks.get_offsets().filled(np.nan)).all(axis=1).tolist() == [False, False, True]


def test_long_tags_are_cut_and_dollars_are_no_formula():
    strange = dataclasses.replace(BY_HAND, vocabulary=("$x^2$ and $y$", "z" * 80))
    for chart in (charts.precision_recall_chart, charts.curves_chart):
        figure = chart(strange)
        figure.draw_without_rendering()
        texts = [*figure.axes[0].get_yticklabels(), *(axes.title for axes in figure.axes)]
        assert any("$x^2$ and $y$" in text.get_text() and not text.get_parse_math() for text in texts)
        assert any("zzz…" in text.get_text() for text in texts)


def test_a_figure_is_saved_where_no_folder_is_yet(tmp_path):
    charts.save_figure(charts.precision_recall_chart(BY_HAND), tmp_path / "new" / "chart.png")
    assert imread(tmp_path / "new" / "chart.png").std() > 0
