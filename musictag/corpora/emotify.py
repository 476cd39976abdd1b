"""A catalog from the Emotify set: 300 real songs of four genres, with the emotions that listeners felt.

Aljanaki, Wiering and Veltkamp, "Studying emotion induced by music through a crowdsourcing game", 2016. The set is a
folder with `ratings.csv` (one row a track: `track_id`, `file`, `genre`, `artist`, `album`, `title` and, per emotion,
the share of the track's listeners who felt it) and the audio files that the column `file` names.

    python -m musictag.corpora.emotify SOURCE FOLDER
"""

import argparse
import csv
import sys
from pathlib import Path

from musictag.errors import CatalogError
from musictag.jobs import progress
from musictag.jobs.process import run_main

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
TAG_SHARE = 0.25
"""An emotion is a tag of a track where at least this share of its listeners felt it."""
_COPIED = ("track_id", "artist", "album", "title")


def make_emotify(folder: Path, source: Path) -> Path:
    """Write `folder/catalog.csv` for the Emotify set in the folder `source`, and return its path.

    A track's tags are its genre and the emotions of at least `TAG_SHARE`; its uri is the absolute path of its audio.
    Raises `CatalogError` where `ratings.csv` is missing, lacks a column, or has a share that is no number.
    """
    ratings = source / "ratings.csv"
    try:
        with ratings.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            columns = reader.fieldnames or []
            rows = list(reader)
    except FileNotFoundError as error:
        raise CatalogError(f"{ratings} does not exist: give the folder that holds the Emotify set") from error
    if missing := [name for name in (*_COPIED, "file", "genre", *EMOTIONS) if name not in columns]:
        raise CatalogError(f"{ratings} lacks the column {', '.join(missing)}")
    tracks = [
        [*(row[name] for name in _COPIED), str((source / row["file"]).resolve()), ";".join(_tags(row, ratings))]
        for row in rows
    ]
    folder.mkdir(parents=True, exist_ok=True)
    catalog = folder / "catalog.csv"
    part = catalog.with_name(".catalog.csv.part")
    with part.open("w", encoding="utf-8", newline="") as lines:
        csv.writer(lines, lineterminator="\n").writerows([[*_COPIED, "uri", "tags"], *tracks])
    part.replace(catalog)
    return catalog


def main(argv: list[str]) -> None:
    """Write the catalog and say where it is."""
    parser = argparse.ArgumentParser(prog="python -m musictag.corpora.emotify", description=make_emotify.__doc__)
    parser.add_argument("source", type=Path, help="folder with ratings.csv and the audio")
    parser.add_argument("folder", type=Path, help="where to write catalog.csv")
    args = parser.parse_args(argv)
    catalog = make_emotify(args.folder, args.source)
    with catalog.open(encoding="utf-8", newline="") as lines:
        n_tracks = sum(1 for _ in csv.DictReader(lines))
    progress.echo(f"{n_tracks} tracks: {catalog}")


def _tags(row: dict[str, str], ratings: Path) -> list[str]:
    """The genre of a track, then its emotions in the order of `EMOTIONS`."""
    try:
        return [row["genre"], *(emotion for emotion in EMOTIONS if float(row[emotion]) >= TAG_SHARE)]
    except ValueError as error:
        raise CatalogError(f"{ratings}, track {row['track_id']}: a share is no number: {error}") from error


if __name__ == "__main__":
    sys.exit(run_main(main))
