import dataclasses

import numpy as np
import pytest
from matplotlib.image import imread

from musictag.evaluation import charts


def labels_do_not_overlap(figure, labels):
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
    return not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_precision_recall_labels_are_readable(n_tags, evaluate):
    figure = charts.precision_recall_chart(evaluate(n_tags))
    labels = figure.axes[0].get_yticklabels()
    assert len(labels) == n_tags
    assert labels_do_not_overlap(figure, labels)


def test_tags_are_sorted_by_f1_with_undefined_ones_last(evaluate):
    evaluation = dataclasses.replace(
        evaluate(3),
        targets=np.tile([[True, False, True], [False, False, False]], (20, 1)),
        scores=np.tile(np.array([[0.3, 0.1, 0.9], [0.9, 0.1, 0.1]], np.float32), (20, 1)),
        thresholds=np.array([0.2, 1.0, 0.5]),
    )
    labels = charts.precision_recall_chart(evaluation).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels][::-1] == ["tag 02  (20)", "tag 00  (20)", "tag 01  (0)"]


def test_marks_are_at_precision_and_recall(by_hand):
    axes = charts.precision_recall_chart(by_hand).axes[0]
    at = {marks.get_label(): marks.get_offsets()[-1].tolist() for marks in axes.collections[1:]}
    assert at == {"precision": [0.5, 1], "recall": [1.0, 1]}


@pytest.mark.slow
@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_curves_have_a_readable_panel_per_tag(n_tags, evaluate):
    figure = charts.curves_chart(evaluate(n_tags))
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    assert [title.get_text().splitlines()[0] for title in titles] == [f"tag {k:02d}" for k in range(n_tags)]
    assert labels_do_not_overlap(figure, [*titles, figure._suptitle])


def test_area_under_a_curve_is_the_stated_one(evaluate):
    axes = charts.curves_chart(evaluate(1)).axes[0]
    recall, precision = axes.lines[1].get_data()
    area = np.sum(-np.diff(recall) * precision[:-1])
    assert axes.get_title().splitlines()[1].startswith(f"{area:.3f}")


def test_panel_of_a_tag_without_positives_says_so(by_hand):
    axes = charts.curves_chart(by_hand).axes[1]
    assert [text.get_text() for text in axes.texts] == ["no positive track"]
    assert not axes.lines


@pytest.mark.slow
@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_comparison_has_two_panels_with_readable_tags(n_tags, evaluate):
    figure = charts.comparison_chart(evaluate(n_tags), evaluate(n_tags, seed=1), ("models:/new", "models:/old"))
    assert [axes.get_xlabel() for axes in figure.axes] == ["precision", "recall"]
    labels = figure.axes[0].get_yticklabels()
    alone = charts.precision_recall_chart(evaluate(n_tags)).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == [label.get_text() for label in alone]
    assert labels_do_not_overlap(figure, [*labels, figure._suptitle, *figure.legends[0].get_texts()])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["models:/new", "models:/old"]


def test_marks_of_two_models_are_at_their_precision_and_recall(by_hand):
    given_to_none = dataclasses.replace(by_hand, thresholds=np.array([0.85, 1.0]))
    precision, recall = charts.comparison_chart(by_hand, given_to_none, ("new", "old")).axes
    for axes, new, old in ((precision, 1 / 2, 1), (recall, 1, 1)):
        at = {marks.get_label(): marks.get_offsets()[-1].tolist() for marks in axes.collections[1:]}
        assert at == {"new": [new, 1], "old": [old, 1]}


def test_tag_known_to_one_model_has_one_mark(by_hand):
    other = dataclasses.replace(by_hand, vocabulary=("jazz", "rag"))
    panels = charts.comparison_chart(by_hand, other, ("same", "same")).axes
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["rag  (0)", "polka  (0)", "jazz  (1)"]
    for axes in panels:
        for marks in axes.collections[1:]:
            assert np.isfinite(marks.get_offsets().filled(np.nan)).all(axis=1).tolist() == [False, False, True]


def test_long_tags_are_shortened_and_dollars_are_literal(by_hand):
    strange = dataclasses.replace(by_hand, vocabulary=("$x^2$ and $y$", "z" * 80))
    for chart in (charts.precision_recall_chart, charts.curves_chart):
        figure = chart(strange)
        figure.draw_without_rendering()
        texts = [*figure.axes[0].get_yticklabels(), *(axes.title for axes in figure.axes)]
        assert any("$x^2$ and $y$" in text.get_text() and not text.get_parse_math() for text in texts)
        assert any("zzz…" in text.get_text() for text in texts)


def test_save_figure_creates_missing_folders(tmp_path, by_hand):
    charts.save_figure(charts.precision_recall_chart(by_hand), tmp_path / "new" / "chart.png")
    assert imread(tmp_path / "new" / "chart.png").std() > 0
