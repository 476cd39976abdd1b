import csv
from pathlib import Path

import pytest

from musictag.corpora.emotify import EMOTIONS, main, make_emotify
from musictag.errors import CatalogError
from musictag.jobs.entry_point import run_main

REAL = Path(__file__).parents[3] / "shared" / "data" / "emotify"
HEADER = ["track_id", "file", "genre", "artist", "album", "title", "year", "raters", *EMOTIONS]


def write_ratings(source, *, header=HEADER, shares=("0.25", "0.2499", *["0"] * 6, "1.0")):
    row = dict(
        zip(HEADER, ["rock_1", "audio/rock_1.ogg", "rock", "A; B", "An, album", "Ä", 2001, 9, *shares], strict=True)
    )
    with (source / "ratings.csv").open("w", encoding="utf-8", newline="") as lines:
        writer = csv.DictWriter(lines, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerow(row)


def read_catalog(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_tags_are_genre_and_emotions_above_the_threshold(tmp_path):
    write_ratings(tmp_path)
    catalog = make_emotify(tmp_path / "new" / "folder", tmp_path)
    assert catalog == tmp_path / "new" / "folder" / "catalog.csv"
    assert read_catalog(catalog) == [
        {
            "track_id": "rock_1",
            "artist": "A; B",
            "album": "An, album",
            "title": "Ä",
            "uri": str(tmp_path / "audio" / "rock_1.ogg"),
            "tags": "rock;amazement;sadness",
        }
    ]


def test_uris_are_absolute(tmp_path, monkeypatch):
    write_ratings(tmp_path)
    monkeypatch.chdir(tmp_path)
    (row,) = read_catalog(make_emotify(tmp_path / "out", Path()))
    assert row["uri"] == str(tmp_path / "audio" / "rock_1.ogg")


def test_missing_ratings_file_is_named(tmp_path):
    with pytest.raises(CatalogError, match=r"ratings\.csv does not exist"):
        make_emotify(tmp_path, tmp_path)


@pytest.mark.parametrize("column", ["track_id", "file", "genre", "sadness"])
def test_missing_column_is_named(tmp_path, column):
    write_ratings(tmp_path, header=[name for name in HEADER if name != column])
    with pytest.raises(CatalogError, match=rf"ratings\.csv lacks the column {column}"):
        make_emotify(tmp_path, tmp_path)
    assert not (tmp_path / "catalog.csv").exists()


def test_invalid_rating_is_named_with_its_track(tmp_path):
    write_ratings(tmp_path, shares=("much", *["0"] * 8))
    with pytest.raises(CatalogError, match=r"track rock_1: .*much"):
        make_emotify(tmp_path, tmp_path)


def test_command_line_prints_count_and_path(tmp_path, capsys):
    write_ratings(tmp_path)
    assert run_main(main, [str(tmp_path), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out == f"1 tracks: {tmp_path / 'out' / 'catalog.csv'}\n"
    assert run_main(main, [str(tmp_path / "nowhere"), str(tmp_path / "out")]) == 2
    assert "ratings.csv does not exist" in capsys.readouterr().err


@pytest.mark.skipif(not REAL.exists(), reason="needs the Emotify set next to the repository (../shared/data/emotify)")
def test_real_set_has_300_tracks_and_13_tags(tmp_path):
    rows = read_catalog(make_emotify(tmp_path, REAL))
    assert len(rows) == 300
    assert all(Path(row["uri"]).is_file() for row in rows)
    tags = [set(row["tags"].split(";")) for row in rows]
    assert set().union(*tags) == {"classical", "electronic", "pop", "rock", *EMOTIONS}
    assert all(len(track & {"classical", "electronic", "pop", "rock"}) == 1 for track in tags)
