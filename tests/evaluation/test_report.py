import dataclasses
import re

import numpy as np
import pyarrow as pa
import pytest

from musictag.evaluation import report
from musictag.evaluation.comparison import compare
from musictag.evaluation.results import Evaluation, per_tag, summary

DASH = report.UNDEFINED


def test_table_is_aligned_with_dashes_for_nan():
    table = pa.table({"tag": ["a", "longer", "爵士"], "n": [1, 200, 3], "f1": [0.5, float("nan"), None]})
    assert report.format_table(table, rules=(2,)).splitlines() == [
        "tag       n     f1",
        "──────────────────",
        "a         1  0.500",
        f"longer  200      {DASH}",
        "──────────────────",
        f"爵士      3      {DASH}",
    ]


def test_table_without_rows_is_its_heading():
    table = pa.table({"n": pa.array([], pa.int64())})
    assert report.format_table(table) == "n\n─"


def test_report_by_hand(by_hand):
    lines = [line.split() for line in report.evaluation_report(by_hand).splitlines()]
    assert " ".join(lines[0]) == (
        "tag support precision recall f1 f1 (95 %) pr_auc pr_auc (95 %) roc_auc ece ece_raw threshold"
    )
    ece, raw = "0.450", "0.250"
    assert lines[2] == ["jazz", "1", "0.500", "1.000", "0.667", DASH, "1.000", DASH, "1.000", ece, raw, "0.500"]
    assert lines[3] == ["polka", "0", *[DASH] * 7, "0.150", raw, "1.000"]
    assert lines[5] == ["macro", "1", "0.500", "1.000", "0.667", DASH, "1.000", DASH, "1.000", "0.300", raw, DASH]
    assert lines[6] == ["micro", "1", "0.500", "1.000", "0.667", DASH, "1.000", DASH, "1.000", "0.300", raw, DASH]
    assert " ".join(lines[8]).startswith("2 tracks of the test split, 2 tags; 2 tags given, 1 true.")
    assert " ".join(lines[9]).startswith("No 95 % intervals: all tracks are of one artist")
    assert " ".join(lines[10]) == "No test track has polka: their figures are undefined."


def test_report_shows_intervals_of_tags_and_macro(evaluate):
    evaluation = evaluate(2)
    lines = report.evaluation_report(evaluation).splitlines()
    values, averages = per_tag(evaluation).to_pylist()[0], summary(evaluation)
    for name in ("f1", "pr_auc"):
        assert f"{values[name]:.3f}  {values[name + '_low']:.2f} to {values[name + '_high']:.2f}  " in lines[2]
        low, high = averages[f"macro_{name}_low"], averages[f"macro_{name}_high"]
        assert f"{averages['macro_' + name]:.3f}  {low:.2f} to {high:.2f}  " in lines[5]
    assert lines[-1] == "95 %: intervals by bootstrap over 20 artists, 1000 draws."


def test_report_has_a_line_per_tag(evaluate):
    lines = report.evaluation_report(evaluate(50)).splitlines()
    assert [line.split("  ")[0] for line in lines[2:52]] == [f"tag {k:02d}" for k in range(50)]


EXAMPLES = Evaluation(
    split="test",
    track_ids=("a", "b", "c"),
    groups=("track:a", "track:b", "track:c"),
    vocabulary=("jazz", "polka", "waltz"),
    targets=np.array([[True, False, True], [False, True, False], [False, False, False]]),
    scores=np.array([[0.6, 0.9, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.3]], np.float32),
    raw_scores=np.array([[0.6, 0.9, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.3]], np.float32),
    thresholds=np.array([0.5, 0.5, 0.5]),
)


def test_examples_show_given_wrong_and_missed_tags():
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
def test_examples_are_evenly_spaced(n_tracks, shown, evaluate):
    names = {f"{n}.mp3": f"song {n}" for n in range(40)}
    lines = report.examples(evaluate(3), names, n_tracks).splitlines()
    assert lines[1::2] == [f"  song {n}" for n in shown]


def test_comparison_has_a_table_per_figure():
    other = dataclasses.replace(
        EXAMPLES,
        vocabulary=("jazz", "polka", "rag"),
        scores=np.array([[0.1, 0.9, 0.1], [0.6, 0.8, 0.2], [0.2, 0.2, 0.3]], np.float32),
    )
    blocks = report.comparison(compare(EXAMPLES, other), ("new", "old")).split("\n\n")
    assert [block.split()[0] for block in blocks] == ["PR-AUC", "ROC-AUC", "F1", "Calibration"]
    lines = [line.split() for line in blocks[0].splitlines()]
    assert lines[0] == ["PR-AUC", "new", "old", "difference", "95", "%"]
    assert lines[2][:4] == ["jazz", "1.000", "0.333", "+0.667"]
    assert lines[3][:4] == ["polka", "0.500", "0.500", "+0.000"]
    assert lines[4] == ["rag", DASH, "0.333", DASH, DASH]
    assert lines[5] == ["waltz", "0.333", DASH, DASH, DASH]
    assert lines[7][:4] == ["macro", "0.750", "0.417", "+0.333"]
    assert (
        blocks[0].splitlines()[-1]
        == "PR-AUC: 1 of 4 tags better (0 with an interval above 0), 0 worse (0 with an interval below 0)."
    )


def test_clear_differences_are_marked_and_counted(evaluate):
    poor = evaluate(3, n_tracks=120)
    good = dataclasses.replace(poor, scores=np.where(poor.targets, poor.scores, 0.1 * poor.scores))
    poor = dataclasses.replace(poor, scores=1 - good.scores)
    text = report.comparison(compare(good, poor), ("same", "same"))
    lines = text.splitlines()
    assert all(line.endswith("  *") for line in [*lines[2:5], lines[6]])
    assert all(re.search(r" \+0\.\d+ +\+0\.\d+ to \+0\.\d+  \*$", line) for line in lines[2:5])
    assert lines[7] == "PR-AUC: 3 of 3 tags better (3 with an interval above 0), 0 worse (0 with an interval below 0)."
    assert lines[-1].startswith("95 %: intervals by paired bootstrap over artists, 1000 draws;")


def test_comparison_without_common_tags_says_so(evaluate):
    other = dataclasses.replace(evaluate(2), vocabulary=("a", "b"))
    text = report.comparison(compare(evaluate(2), other), ("new", "old"))
    assert text.splitlines()[-1] == "The two models share no tag that these tracks have: nothing is compared."


@pytest.mark.parametrize(("split", "claim"), [("test", True), ("train", False)])
def test_only_test_tracks_are_called_unseen(split, claim):
    heading = report.examples(dataclasses.replace(EXAMPLES, split=split), {}).splitlines()[0]
    assert ("which was used neither for training nor for tuning" in heading) == claim


def test_comparison_on_one_artist_says_that_there_are_no_intervals(by_hand):
    text = report.comparison(compare(by_hand, by_hand), ("new", "old"))
    assert "*" not in text
    assert text.splitlines()[-1].startswith("No 95 % intervals: all tracks are of one artist")
