import csv
import io
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.cli import output
from musictag.errors import AudioError

# Paths and tags are text that UTF-8 can encode; a path or tag with NUL does not exist.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1)
SCORED = st.lists(st.tuples(TEXTS, st.floats(0, 1)), max_size=3)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(TEXTS, SCORED)
def test_json_is_one_line_that_holds_all_values(name, scored):
    line = output.as_json(name, scored)
    assert line.endswith("\n")
    assert line.count("\n") == 1
    tags = [{"tag": tag, "score": score} for tag, score in scored]
    assert json.loads(line) == {"file": name, "tags": tags, **({} if scored else {"silent": True})}


@settings(max_examples=100, deadline=None)
@given(TEXTS, SCORED)
def test_csv_rows_hold_all_values(name, scored):
    rows = list(csv.DictReader(io.StringIO(output.CSV_HEADER + output.as_csv(name, scored), newline="")))
    found = [(row["file"], row["tag"], float(row["score"] or "nan"), row["error"]) for row in rows]
    assert found == [(name, tag, score, "") for tag, score in scored] or (found[0][3], scored) == ("silent", [])


def test_silent_file_has_no_tags():
    assert output.as_text("a", []) == "a\n  silent: no tags\n\n"
    assert output.as_csv("a", []) == "a,,,silent\n"


def test_error_is_reported_without_the_name():
    error = AudioError("a.mp3: not audio")
    assert output.as_text("a.mp3", error) == ""
    assert output.as_csv("a.mp3", error) == "a.mp3,,,not audio\n"
    assert json.loads(output.as_json("a.mp3", error)) == {"file": "a.mp3", "error": "not audio"}


@pytest.mark.parametrize(
    ("score", "bar"), [(0.0, ""), (1.0, "█" * 24), (0.5, "█" * 12), (1 / 192, "▏"), (0.31, "█" * 7 + "▌")]
)
def test_bar_length_is_the_score(score, bar):
    assert output.as_text("a", [("calm", score)]) == f"a\n  {score:.2f}  {bar:<24}  calm\n\n"
