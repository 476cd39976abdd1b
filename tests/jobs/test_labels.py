from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pytest

from musictag.catalog.matching import TrackCount
from musictag.catalog.reader import Catalog, read_catalog
from musictag.catalog.splits import SPLITS
from musictag.jobs.labels import echo_problems, read_labels
from musictag.storage import commits, tables

SCHEMA = pa.schema(
    [("track_id", pa.string()), ("audio_sha256", pa.string()), ("featurized_at", pa.timestamp("us", "UTC"))]
)


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    """Eight tracks of different artists, of which two have no tags, and a row that cannot be used."""
    lines = [f"{n},{n}.wav,artist {n},{'calm' if n < 6 else ''}" for n in range(8)]
    path = tmp_path / "catalog.csv"
    path.write_text("\n".join(["track_id,uri,artist,tags", *lines, "broken,,x,calm"]))
    return read_catalog(str(path))


@pytest.fixture
def features_uri(tmp_path: Path) -> str:
    """A table with the tracks 0 to 4 at version 1 and also 5 and `removed` at version 2."""
    uri = str(tmp_path / "features")
    tables.create_table(uri, SCHEMA)
    for track_ids in (["0", "1", "2", "3", "4"], ["5", "removed"]):
        commits.append_rows(uri, SCHEMA, [{"track_id": track_id} for track_id in track_ids])
    return uri


def test_labels_are_tags_of_tracks_with_features(catalog: Catalog, features_uri: str) -> None:
    labels = read_labels(catalog, features_uri)
    tags = {track_id: tags for split in SPLITS for track_id, tags in labels.tags[split].items()}
    assert tags == {str(n): ["calm"] for n in range(6)}
    assert (labels.n_untagged, labels.without_features, labels.orphaned) == (
        2,
        TrackCount(0),
        TrackCount(1, ("removed",)),
    )


def test_labels_of_an_older_version_lack_later_tracks(catalog: Catalog, features_uri: str) -> None:
    labels = read_labels(catalog, features_uri, 1)
    assert (labels.without_features, labels.orphaned) == (TrackCount(1, ("5",)), TrackCount(0))


def test_splits_are_kept_in_the_splits_table(catalog: Catalog, features_uri: str) -> None:
    labels = read_labels(catalog, features_uri)
    splits_uri = tables.companion_uri(features_uri, "splits")
    rows = tables.read_columns(splits_uri, ("group", "split")).to_pylist()
    splits = {row["group"]: row["split"] for row in rows}
    assert splits == {labels.groups[track_id]: split for split in SPLITS for track_id in labels.tags[split]}
    assert read_labels(catalog, features_uri) == labels
    assert tables.version(splits_uri) == 1


def test_problems_are_printed_with_the_catalog(catalog: Catalog, capsys: pytest.CaptureFixture[str]) -> None:
    echo_problems(catalog, merge_tag_case=False)
    assert capsys.readouterr().out == f"{catalog.uri}, row 10 (broken): uri is empty\n"


def test_only_the_first_problems_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "catalog.csv"
    path.write_text("track_id,uri\n" + "".join(f"{n},\n" for n in range(1_234)))
    echo_problems(read_catalog(str(path)), merge_tag_case=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines[9:] == [f"{path}, row 11 (9): uri is empty", f"{path}: and 1,224 more rows that cannot be used"]


@pytest.fixture
def spellings(tmp_path: Path) -> Catalog:
    tags = ["rock", "Rock", "rock", "ROCK;calm", "Rock", "Rock;rock"]
    path = tmp_path / "catalog.csv"
    path.write_text("\n".join(["track_id,uri,tags", *(f"{n},{n}.wav,{tag}" for n, tag in enumerate(tags))]))
    return read_catalog(str(path))


@pytest.mark.parametrize(
    ("merge", "end"), [(True, "learned as one"), (False, "learned as several tags; --merge-tag-case makes them one")]
)
def test_tags_that_differ_by_case_alone_are_printed_with_their_tracks(
    spellings: Catalog, capsys: pytest.CaptureFixture[str], merge: bool, end: str
) -> None:
    echo_problems(spellings, merge_tag_case=merge)
    found = "tags that differ by case alone: Rock (3 tracks), rock (3 tracks), ROCK (1 track)"
    assert capsys.readouterr().out == f"{spellings.uri}, {found}: {end}\n"


@pytest.mark.parametrize(
    ("merge_tag_case", "expected"),
    [
        (None, {"rock", "Rock", "ROCK", "calm"}),
        ((), {"Rock", "calm"}),
        (("rock", "Calm"), {"rock", "Calm"}),
    ],
)
def test_tags_that_differ_by_case_alone_are_merged(
    spellings: Catalog, features_uri: str, merge_tag_case: Collection[str] | None, expected: set[str]
) -> None:
    labels = read_labels(spellings, features_uri, merge_tag_case=merge_tag_case)
    tag_lists = [tags for split in SPLITS for tags in labels.tags[split].values()]
    assert {tag for tags in tag_lists for tag in tags} == expected
    assert all(len(tags) == len(set(tags)) for tags in tag_lists)
