import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.image import imread

from musictag import report
from musictag.evaluation import Evaluation


def evaluate(n_tags, n_tracks=40, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.random((n_tracks, n_tags)) < 0.3
    return Evaluation(
        split="test",
        track_ids=tuple(f"{n}.mp3" for n in range(n_tracks)),
        vocabulary=tuple(f"tag {k:02d}" for k in range(n_tags)),
        targets=targets,
        scores=(0.5 * rng.random((n_tracks, n_tags)) + 0.4 * targets).astype(np.float32),
        thresholds=np.full(n_tags, 0.45),
    )


DASH = report.UNDEFINED
BY_HAND = Evaluation(
    split="test",
    track_ids=("a", "b"),
    vocabulary=("jazz", "polka"),
    targets=np.array([[True, False], [False, False]]),
    scores=np.array([[0.9, 0.1], [0.8, 0.2]], np.float32),
    thresholds=np.array([0.5, 1.0]),
)


def test_a_table_is_aligned_and_undefined_values_are_dashes():
    table = pa.table({"tag": ["a", "longer", "爵士"], "n": [1, 200, 3], "f1": [0.5, float("nan"), None]})
    assert report.format_table(table, rules=(2,)).splitlines() == [
        "tag       n     f1",
        "──────────────────",
        "a         1  0.500",
        f"longer  200      {DASH}",
        "──────────────────",
        f"爵士      3      {DASH}",
    ]


def test_a_table_without_rows_is_its_heading():
    table = pa.table({"n": pa.array([], pa.int64())})
    assert report.format_table(table) == "n\n─"


def test_the_report_by_hand():
    lines = [line.split() for line in report.evaluation_report(BY_HAND).splitlines()]
    assert lines[2] == ["jazz", "1", "0.500", "1.000", "0.667", "1.000", "1.000", "0.500"]
    assert lines[3] == ["polka", "0", *[DASH] * 5, "1.000"]
    assert lines[5] == ["macro", "1", "0.500", "1.000", "0.667", "1.000", "1.000", DASH]
    assert lines[6] == ["micro", "1", "0.500", "1.000", "0.667", "1.000", "1.000", DASH]
    assert " ".join(lines[8]).startswith("2 tracks of the test split, 2 tags; 2 tags given, 1 true.")


def test_the_report_has_a_line_per_tag():
    lines = report.evaluation_report(evaluate(50)).splitlines()
    assert [line.split("  ")[0] for line in lines[2:52]] == [f"tag {k:02d}" for k in range(50)]


def labels_do_not_overlap(figure, labels):
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
    return not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_precision_recall_labels_are_readable(n_tags):
    figure = report.precision_recall_chart(evaluate(n_tags))
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
    labels = report.precision_recall_chart(evaluation).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels][::-1] == ["tag 02  (20)", "tag 00  (20)", "tag 01  (0)"]


def test_marks_stand_at_precision_and_recall():
    axes = report.precision_recall_chart(BY_HAND).axes[0]
    at = {marks.get_label(): marks.get_offsets()[-1].tolist() for marks in axes.collections[1:]}
    assert at == {"precision": [0.5, 1], "recall": [1.0, 1]}


@pytest.mark.parametrize("n_tags", [1, 13, 50])
def test_curves_have_a_panel_per_tag_with_readable_titles(n_tags):
    figure = report.curves_chart(evaluate(n_tags))
    titles = [axes.title for axes in figure.axes if axes.get_title()]
    assert [title.get_text().splitlines()[0] for title in titles] == [f"tag {k:02d}" for k in range(n_tags)]
    assert labels_do_not_overlap(figure, [*titles, figure._suptitle])


def test_a_curve_holds_the_area_it_states():
    axes = report.curves_chart(evaluate(1)).axes[0]
    recall, precision = axes.lines[1].get_data()
    area = np.sum(-np.diff(recall) * precision[:-1])
    assert axes.get_title().splitlines()[1].startswith(f"{area:.3f}")


def test_a_tag_without_positives_says_so():
    axes = report.curves_chart(BY_HAND).axes[1]
    assert [text.get_text() for text in axes.texts] == ["no positive track"]
    assert not axes.lines


def test_long_tags_are_cut_and_dollars_are_no_formula():
    strange = dataclasses.replace(BY_HAND, vocabulary=("$x^2$ and $y$", "z" * 80))
    for chart in (report.precision_recall_chart, report.curves_chart):
        figure = chart(strange)
        figure.draw_without_rendering()
        texts = [*figure.axes[0].get_yticklabels(), *(axes.title for axes in figure.axes)]
        assert any("$x^2$ and $y$" in text.get_text() and not text.get_parse_math() for text in texts)
        assert any("zzz…" in text.get_text() for text in texts)


def test_a_figure_is_saved_where_no_folder_is_yet(tmp_path):
    report.save_figure(report.precision_recall_chart(BY_HAND), tmp_path / "new" / "chart.png")
    assert imread(tmp_path / "new" / "chart.png").std() > 0


EXAMPLES = Evaluation(
    split="test",
    track_ids=("a", "b", "c"),
    vocabulary=("jazz", "polka", "waltz"),
    targets=np.array([[True, False, True], [False, True, False], [False, False, False]]),
    scores=np.array([[0.6, 0.9, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.3]], np.float32),
    thresholds=np.array([0.5, 0.5, 0.5]),
)


def test_examples_show_tags_best_first_with_wrong_ones_in_brackets_and_what_is_missed():
    heading, *lines = report.examples(EXAMPLES, {"a": "Monk \u2013 Epistrophy", "b": ""}).splitlines()
    assert "test split" in heading
    assert lines == [
        "  Monk \u2013 Epistrophy",
        "    [polka 0.90], jazz 0.60; missed: waltz",
        "  b",
        "    polka 0.80",
        "  c",
        "    no tag",
    ]


@pytest.mark.parametrize(("n_tracks", "shown"), [(1, [0]), (2, [0, 39]), (4, [0, 13, 26, 39]), (100, range(40))])
def test_examples_are_taken_evenly_from_all_tracks(n_tracks, shown):
    names = {f"{n}.mp3": f"song {n}" for n in range(40)}
    lines = report.examples(evaluate(3), names, n_tracks).splitlines()
    assert lines[1::2] == [f"  song {n}" for n in shown]


def test_a_comparison_has_a_column_per_model_and_a_dash_for_a_tag_that_one_does_not_know():
    other = dataclasses.replace(
        EXAMPLES,
        vocabulary=("jazz", "polka", "rag"),
        scores=np.array([[0.1, 0.9, 0.1], [0.6, 0.8, 0.2], [0.2, 0.2, 0.3]], np.float32),
    )
    lines = [line.split() for line in report.comparison({"new": EXAMPLES, "old": other}).splitlines()]
    assert lines[0] == ["PR-AUC", "new", "old"]
    assert lines[2] == ["jazz", "1.000", "0.333"]
    assert lines[3] == ["polka", "0.500", "0.500"]
    assert lines[4] == ["rag", DASH, "0.333"]
    assert lines[5] == ["waltz", "0.333", DASH]
    assert lines[7] == ["macro", "PR-AUC", "0.611", "0.389"]
    assert [line[:2] for line in lines[8:]] == [["macro", "ROC-AUC"], ["macro", "F1"]]
