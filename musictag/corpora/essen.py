"""Read Chinese folk tunes: the Han part of the Essen Folksong Collection, from the package music21.

The collection (Schaffrath, "The Essen Folksong Collection", 1995) is in ABC notation. These files use a small subset:
one voice without tuplets, chords, ornaments or repeats. `parse_tunes` reads this subset in a few milliseconds per
hundred tunes; music21's general parser takes about 30 ms per tune. The tests compare the two.
"""

import dataclasses
import importlib.util
import re
from pathlib import Path

from musictag.errors import UsageError

_FILES = ("han1.abc", "han2.abc")
_LETTER_STEPS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"_": -1, "=": 0, "^": 1}
# Number of sharps of each major key; negative numbers are flats.
_SIGNATURES = {"Ab": -4, "Eb": -3, "Bb": -2, "F": -1, "C": 0, "G": 1, "D": 2, "A": 3, "E": 4}
_TOKEN = re.compile(
    r"(?P<bar>[|\n])|(?P<sign>[_=^]?)(?P<letter>[A-Ga-gz])(?P<octave>[,']*)(?P<length>\d*)(?P<tie>-?)|\s+"
)


@dataclasses.dataclass(frozen=True)
class Tune:
    """One melody with the collection's metadata."""

    tune_id: str
    """Number in the collection, such as `C0002`."""
    title: str
    region: str
    """Province, such as `Shaanxi`; empty if unknown."""
    genre: str
    """First word of the genre field in lower case, such as `xiaodiao`; empty if unknown."""
    metre: str
    """As in the file, such as `2/4` or `none`."""
    notes: tuple[tuple[int | None, float], ...]
    """MIDI note number (None for a rest) and length in quarter notes, in order. Lengths are dyadic, so exact."""


def read_tunes() -> list[Tune]:
    """Return all tunes of the Han part in the order of the collection; `UsageError` if music21 is not installed."""
    corpus = package_folder("music21") / "corpus" / "essenFolksong"
    return [tune for name in _FILES for tune in parse_tunes((corpus / name).read_text(encoding="utf-8"))]


def package_folder(package: str) -> Path:
    """Return the folder of an optional package without importing it; `UsageError` if it is not installed."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UsageError(f"making songs needs the package {package}, which is not installed: run `make install`")
    return Path(spec.submodule_search_locations[0])


def parse_tunes(abc: str) -> list[Tune]:
    """Return the tunes of an ABC file, without those that are empty or use notation outside of the subset."""
    tunes = (_parse_tune(block) for block in re.split(r"\n(?=X:)", abc))
    return [tune for tune in tunes if tune is not None and tune.notes]


def _parse_tune(block: str) -> Tune | None:
    head, found, rest = block.partition("\nK:")
    key, _, body = rest.partition("\n")
    fields: dict[str, str] = {}
    for name, value in re.findall(r"^([A-Z]):[ ]*(.*?)\]?$", head, re.MULTILINE):
        fields.setdefault(name, value.strip())
    if not found or key.strip() not in _SIGNATURES:
        return None
    notes = _parse_notes(body, _SIGNATURES[key.strip()], _quarters(fields.get("L", "1/8")))
    if notes is None:
        return None
    # The province is the word after the country: "China, Shaanxi, Zizhou" or "China, Ningxia Yanchi".
    region = re.match(r"China[, ]+([A-Z]\w+)", fields.get("O", ""))
    genre = re.match(r"\w+", fields.get("R", ""))
    return Tune(
        tune_id=fields.get("N", ""),
        title=fields.get("T", ""),
        region=region[1] if region else "",
        genre=genre[0].lower() if genre else "",
        metre=fields.get("M", "none"),
        notes=tuple(notes),
    )


def _quarters(fraction: str) -> float:
    """Convert a fraction of a whole note to quarter notes: `1/16` is 0.25."""
    numerator, _, denominator = fraction.partition("/")
    return 4 * int(numerator) / int(denominator)


def _parse_notes(body: str, fifths: int, unit: float) -> list[tuple[int | None, float]] | None:
    """Return the notes of a tune's body with ties joined, or None if it uses notation outside of the subset.

    `unit` is the length, in quarter notes, of a note without a number.
    """
    order = "FCGDAEB"
    signature = dict.fromkeys(order[: max(fifths, 0)], 1) | dict.fromkeys(order[7 + min(fifths, 0) :], -1)
    notes: list[tuple[int | None, float]] = []
    in_bar: dict[tuple[str, str], int] = {}
    tied = False
    position = 0
    while position < len(body):
        token = _TOKEN.match(body, position)
        if token is None:
            return None
        position = token.end()
        if token["bar"]:
            in_bar = {}
        if not token["letter"]:
            continue
        length = unit * int(token["length"] or 1)
        if token["letter"] == "z":
            notes.append((None, length))
            tied = False
            continue
        letter, where = token["letter"].upper(), (token["letter"], token["octave"])
        if token["sign"]:
            in_bar[where] = _ACCIDENTALS[token["sign"]]
        pitch = 60 + _LETTER_STEPS[letter] + 12 * token["letter"].islower()
        pitch += 12 * (token["octave"].count("'") - token["octave"].count(","))
        pitch += in_bar.get(where, signature.get(letter, 0))
        if tied and notes[-1][0] == pitch:
            notes[-1] = (pitch, notes[-1][1] + length)
        else:
            notes.append((pitch, length))
        tied = bool(token["tie"])
    return notes
