"""Make a catalog of the Emotify set: real songs of four genres, with the emotions that listeners felt.

Aljanaki, Wiering and Veltkamp, "Studying emotion induced by music through a crowdsourcing game", 2016. The set is a
folder with audio files and `ratings.csv`. That file has one row per track with the columns `track_id`, `file` (path of
the audio), `genre`, `artist`, `album`, `title`, and one column per emotion: the fraction of listeners who felt it.

    python -m musictag.corpora.emotify SOURCE FOLDER
"""

import argparse
import csv
import sys
from pathlib import Path

from musictag.errors import CatalogError
from musictag.jobs import progress
from musictag.jobs.entry_point import run_main

EMOTIONS = (
    "amazement",
    "solemnity",
    "tenderness",
    "nostalgia",
    "calmness",
    "power",
    "joyful_activation",
    "tension",
    "sadness",
)
MIN_LISTENER_SHARE = 0.25
"""An emotion becomes a tag if at least this fraction of the listeners felt it."""
_COPIED_COLUMNS = ("track_id", "artist", "album", "title")


def make_emotify(folder: Path, source: Path) -> Path:
    """Write `folder/catalog.csv` for the Emotify set in the folder `source`, and return its path.

    The tags of a track are its genre and its emotions of at least `MIN_LISTENER_SHARE`. The uri is an absolute path.
    Raises `CatalogError` if `ratings.csv` is missing, lacks a column, or has a rating that is not a number.
    """
    ratings = source / "ratings.csv"
    tracks = [
        [
            *(row[name] for name in _COPIED_COLUMNS),
            str((source / row["file"]).resolve()),
            ";".join(_tags(row, ratings)),
        ]
        for row in _read_ratings(ratings)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    catalog = folder / "catalog.csv"
    part = catalog.with_name(".catalog.csv.part")
    with part.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerows([[*_COPIED_COLUMNS, "uri", "tags"], *tracks])
    part.replace(catalog)
    return catalog


def main(argv: list[str]) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m musictag.corpora.emotify", description="Make a catalog of the Emotify set."
    )
    parser.add_argument("source", type=Path, help="folder with ratings.csv and the audio")
    parser.add_argument("folder", type=Path, help="where to write catalog.csv")
    args = parser.parse_args(argv)
    catalog = make_emotify(args.folder, args.source)
    with catalog.open(encoding="utf-8", newline="") as lines:
        n_tracks = sum(1 for _ in csv.DictReader(lines))
    progress.echo(f"{n_tracks} tracks: {catalog}")


def _read_ratings(ratings: Path) -> list[dict[str, str]]:
    try:
        with ratings.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or []
            rows = list(reader)
    except FileNotFoundError as error:
        raise CatalogError(f"{ratings} does not exist: give the folder that holds the Emotify set") from error
    if missing := [name for name in (*_COPIED_COLUMNS, "file", "genre", *EMOTIONS) if name not in columns]:
        raise CatalogError(f"{ratings} lacks the column {', '.join(missing)}")
    return rows


def _tags(row: dict[str, str], ratings: Path) -> list[str]:
    """Return the genre of a track, then its emotions in the order of `EMOTIONS`."""
    try:
        return [row["genre"], *(emotion for emotion in EMOTIONS if float(row[emotion]) >= MIN_LISTENER_SHARE)]
    except ValueError as error:
        raise CatalogError(f"{ratings}, track {row['track_id']}: a rating is not a number: {error}") from error


if __name__ == "__main__":
    sys.exit(run_main(main))
