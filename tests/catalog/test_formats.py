"""One catalog in any encoding, with any separator and in any format gives the same tracks."""

import decimal
import io
import json
import math
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from musictag.catalog.encodings import guess_encoding
from musictag.catalog.reader import Catalog, read_catalog
from musictag.catalog.validation import iter_problems
from musictag.catalog.vocabulary import normalized_tag

TEXT = "track_id,uri,title,tags\n1,a.mp3,Füße,röck;pop\n2,b.mp3,爵士,\n"
TITLES = ["Füße", "爵士"]


def read(path: Path, content: bytes) -> Catalog:
    path.write_bytes(content)
    return read_catalog(str(path))


def ids(catalog: Catalog) -> list[str]:
    return list(catalog.tracks["track_id"].to_pylist())


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_encodings_and_separators_are_recognized(tmp_path: Path, encoding: str, separator: str) -> None:
    text = TEXT.replace("röck;pop", '"röck;pop"').replace(",", separator).replace("\n", "\r\n")
    catalog = read(tmp_path / "c.csv", text.encode(encoding))
    assert not catalog.problems.num_rows
    assert ids(catalog) == ["1", "2"]
    assert catalog.tracks["title"].to_pylist() == TITLES
    assert catalog.tracks["tags"].to_pylist() == [["pop", "röck"], []]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_lines_may_have_these_encodings_as_well(tmp_path: Path, encoding: str) -> None:
    lines = [
        json.dumps({"track_id": n, "uri": "a", "title": title}, ensure_ascii=False) for n, title in enumerate(TITLES)
    ]
    catalog = read(tmp_path / "c.jsonl", "\n".join(lines).encode(encoding))
    assert catalog.tracks["title"].to_pylist() == TITLES


def test_other_encoding_is_named_and_costs_its_rows_only(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n}.mp3,{title}\n" for n, title in enumerate(["Abend", "Füße", "Mädchen", "schöne Größe"]))
    catalog = read(tmp_path / "c.csv", f"track_id,uri,title\n{rows}".encode("cp1252"))
    assert ids(catalog) == ["0"]
    assert [problem.row for problem in iter_problems(catalog.problems)] == [3, 4, 5]
    for problem in iter_problems(catalog.problems):
        assert "title is not UTF-8" in problem.message
        assert "save the catalog as UTF-8 (it may be cp1252" in problem.message


WESTERN_NAMES = (
    "Édith Piaf", "Céline Dion", "Sigur Rós", "Beyoncé", "Motörhead", "João Gilberto", "Mylène Farmer – L’été",  # noqa: RUF001
    "Die Ärzte: „Größe“", "Røyksopp", "El Niño… ¿Qué?", "Cœur de pirate", "Björk",
)  # fmt: skip


@given(st.lists(st.sampled_from(WESTERN_NAMES), min_size=1).map("\n".join))
def test_western_names_in_cp1252_are_recognized(names: str) -> None:
    assert guess_encoding(io.BytesIO(names.encode("cp1252"))) == "cp1252"


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "1,a.mp3,Виктор Цой\n2,b.mp3,Кино\n3,c.mp3,Группа крови\n"),
        ("cp1250", "1,a.mp3,Vysocký žluťoučký kůň\n2,b.mp3,Łódź\n"),
    ],
)
def test_other_alphabets_are_not_taken_for_western_names(encoding: str, text: str) -> None:
    assert guess_encoding(io.BytesIO(text.encode(encoding))) == encoding


def test_word_of_another_alphabet_is_not_taken_for_a_western_name() -> None:
    assert guess_encoding(io.BytesIO("Кино".encode("cp1251"))) != "cp1252"


@pytest.mark.parametrize("line", ["sep=;", '"sep=;"', "SEP=,"])
def test_line_with_which_excel_is_told_the_separator_is_skipped(tmp_path: Path, line: str) -> None:
    separator = line.strip('"')[-1]
    (tmp_path / "c.csv").write_text(f"{line}\r\n" + separator.join(("track_id", "uri")) + f"\r\na{separator}a.mp3\r\n")
    catalog = read_catalog(str(tmp_path / "c.csv"))
    assert catalog.tracks["track_id"].to_pylist() == ["a"]
    (tmp_path / "c.csv").write_text(f"{line}\ntrack_id{separator}uri\n{separator}a.mp3\n")
    [problem] = iter_problems(read_catalog(str(tmp_path / "c.csv")).problems)
    assert problem.row == 3


def test_rows_have_the_number_of_their_last_line(tmp_path: Path) -> None:
    catalog = read(tmp_path / "c.csv", b'track_id,uri\n\n\n,a.mp3\n"x\ny",b.mp3\n\nfew\n')
    assert catalog.problems["row"].to_pylist() == [4, 6, 8]


@pytest.mark.parametrize("content", [b"track_id,uri,etag\na,a,x1\nb,b,\n", b"track_id\turi\tetag\na\ta\tx1\nb\tb\t \n"])
def test_etag_of_a_catalog_is_kept_as_it_is(tmp_path: Path, content: bytes) -> None:
    assert read(tmp_path / "c.csv", content).tracks["etag"].to_pylist() == ["x1", None]


def test_etag_that_is_not_text_is_a_problem(tmp_path: Path) -> None:
    [problem] = iter_problems(read(tmp_path / "c.jsonl", b'{"track_id": "a", "uri": "a", "etag": 5}').problems)
    assert problem.message == "etag is not text: 5"


def test_separator_is_the_one_with_which_the_header_is_complete(tmp_path: Path) -> None:
    catalog = read(tmp_path / "c.csv", b"track_id,uri,a;b\n1,x;y.mp3,\n")
    assert catalog.tracks["uri"].to_pylist() == [f"{tmp_path}/x;y.mp3"]
    catalog = read(tmp_path / "c.tsv", b"track_id\turi\n1\ta,b.mp3\textra\n")
    assert (
        next(iter_problems(catalog.problems)).message
        == "1 more fields than the header has: quote fields that contain a tab"
    )


MISSING = pd.DataFrame({"track_id": [7, None, 12], "uri": ["a.mp3", "b.mp3", "c.mp3"]})


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_ids_stay_whole_numbers_if_pandas_writes_a_column_with_a_missing_one(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"c{suffix}"
    match suffix:
        case ".csv":
            MISSING.to_csv(path, index=False)
        case ".jsonl":
            MISSING.to_json(path, orient="records", lines=True)
        case ".parquet":
            MISSING.to_parquet(path)
    catalog = read_catalog(str(path))
    assert ids(catalog) == ["7", "12"]
    assert [problem.message for problem in iter_problems(catalog.problems)] == ["track_id is empty"]


def test_text_that_looks_like_a_number_is_an_id(tmp_path: Path) -> None:
    assert ids(read(tmp_path / "c.csv", b"track_id,uri\n7.0,a\n007,b\n1e5,c\n")) == ["7.0", "007", "1e5"]
    assert ids(read(tmp_path / "c.jsonl", b'{"track_id": "7.0", "uri": "a"}')) == ["7.0"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (True, "True"), ({"x": 1}, "{'x': 1}"), ([1], "[1]"), (7.5, "7.5"), (1e300, "1e+300"), (math.inf, "inf"),
        (2.0**53, "9007199254740992.0"),
    ],
)  # fmt: skip
def test_other_ids_are_problems(tmp_path: Path, value: object, shown: str) -> None:
    [problem] = iter_problems(
        read(tmp_path / "c.jsonl", json.dumps({"track_id": value, "uri": "a.mp3"}).encode()).problems
    )
    assert problem.message == f"track_id is {shown}: it must be text or a whole number"


def test_ids_stay_whole_numbers_after_rows_without_one_were_dropped(tmp_path: Path) -> None:
    MISSING.dropna().to_csv(tmp_path / "c.csv", index=False)
    assert ids(read_catalog(str(tmp_path / "c.csv"))) == ["7", "12"]
    assert ids(read(tmp_path / "c.csv", b"track_id,uri\n1.0,a\n2.0,b\nx,c\n")) == ["1.0", "2.0", "x"]


@pytest.mark.parametrize("written", ["NaN", "nan", "NULL", "None", "<NA>"])
def test_missing_id_is_the_problem_of_its_row_however_it_is_written(tmp_path: Path, written: str) -> None:
    MISSING.to_csv(tmp_path / "c.csv", index=False, na_rep=written)
    catalog = read_catalog(str(tmp_path / "c.csv"))
    assert ids(catalog) == ["7", "12"]
    [problem] = iter_problems(catalog.problems)
    assert str(problem) == f"row 3 (row 3): track_id is {written}, which stands for a missing value"
    assert problem.hides_any_track


@pytest.mark.parametrize("written", ["1.2345678901234568e+18", "1.23457E+18", "1e+16"])
def test_id_whose_digits_are_lost_is_the_problem_of_its_row(tmp_path: Path, written: str) -> None:
    catalog = read(tmp_path / "c.csv", f"track_id,uri\n7.0,a\n{written},b\n".encode())
    assert ids(catalog) == ["7"]
    message = f"track_id is {written}: digits of the number are lost; save the column as text"
    assert [problem.message for problem in iter_problems(catalog.problems)] == [message]


def test_whole_decimal_is_an_id(tmp_path: Path) -> None:
    frame = pd.DataFrame({"track_id": [decimal.Decimal(7), decimal.Decimal("7.5")], "uri": ["a", "b"]})
    frame.to_parquet(tmp_path / "c.parquet")
    catalog = read_catalog(str(tmp_path / "c.parquet"))
    assert ids(catalog) == ["7"]
    assert "must be text or a whole number" in next(iter_problems(catalog.problems)).message


@pytest.mark.parametrize(
    ("name", "content", "hides"),
    [
        ("c.csv", "track_id,uri\ncafé,a.mp3\n".encode("cp1252"), True),
        ("c.jsonl", b'{"track_id": 7.5, "uri": "a"}\n', True),
        ("c.jsonl", b'{"track_id": ["x"], "uri": "a"}\n', True),
        ("c.jsonl", b'{"track_id": ', True),
        ("c.csv", b"track_id,uri\na\n", True),
        ("c.csv", b'track_id,uri,title\n1,a.mp3,"X\n2,b.mp3,Y\n3,c.mp3,Z"\n', True),
        ("c.csv", b'track_id,uri,tags\n1,a.mp3,"x\n2,b.mp3,y"\n', True),
        ("c.csv", b"track_id,uri,split\na,a.mp3,holdout\n", False),
        ("c.jsonl", b'{"track_id": "a", "uri": 5}\n', False),
    ],
)
def test_problem_whose_row_may_be_that_of_any_track_hides_all(
    tmp_path: Path, name: str, content: bytes, hides: bool
) -> None:
    [problem] = iter_problems(read(tmp_path / name, content).problems)
    assert problem.hides_any_track == hides


def tags_of(path: Path, tags: list[str]) -> list[str]:
    """Return the tags of the only track of a catalog that holds `tags`."""
    row: dict[str, Any] = {"track_id": "1", "uri": "a.mp3", "tags": tags}
    match path.suffix:
        case ".csv":
            pd.DataFrame([row | {"tags": ";".join(tags)}]).to_csv(path, index=False)
        case ".jsonl":
            path.write_text(json.dumps(row) + "\n")
        case ".parquet":
            pd.DataFrame([row]).to_parquet(path)
    return list(read_catalog(str(path)).tracks["tags"].to_pylist()[0])


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl", "c.parquet"])
def test_tags_have_one_form_in_every_format(tmp_path: Path, name: str) -> None:
    written = [" rock", "rock ", "ro\u0308ck", "r\u00f6ck", "hip  hop", "hip\u00a0hop", "hip\thop", " ", "Rock"]
    assert tags_of(tmp_path / name, written) == ["Rock", "hip hop", "rock", "r\u00f6ck"]


@given(st.text())
def test_normal_form_of_a_tag_is_final(tag: str) -> None:
    normal = normalized_tag(tag)
    assert normalized_tag(normal) == normal
    assert normalized_tag(unicodedata.normalize("NFD", tag)) == normal
    assert normalized_tag(f" {tag}\n") == normal
