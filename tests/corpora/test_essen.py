import pytest

from musictag.corpora.essen import package_folder, parse_tunes, read_tunes
from musictag.errors import UsageError

ABC = """
X:1
T: Two bars
N: C9999
O: China, Hubei Macheng
N: a remark
R: Shange, Tiange. Nann qing]
M: 3/4
L: 1/8
K: G
f2F=FFz | f4- f
G,2b'

X:2
T: In no known key
N: C9998
K: H
CDE
"""


def test_parser_reads_fields_key_accidentals_ties_and_rests():
    (tune,) = parse_tunes(ABC)
    assert (tune.tune_id, tune.title, tune.region, tune.genre) == ("C9999", "Two bars", "Hubei", "shange")
    assert tune.metre == "3/4"
    # F is sharp by the key and natural until the end of the bar; tied notes are joined.
    assert tune.notes == ((78, 1), (66, 0.5), (65, 0.5), (65, 0.5), (None, 0.5), (78, 2.5), (55, 1), (95, 0.5))


def test_unsupported_notation_is_skipped():
    assert parse_tunes(ABC.replace("f4- f", "(3fff")) == []


def test_collection_has_tunes_and_genres():
    tunes = read_tunes()
    assert len(tunes) > 1200
    assert {"shange", "xiaodiao", "haozi"} <= {tune.genre for tune in tunes}


@pytest.mark.slow
def test_notes_agree_with_music21():
    converter = pytest.importorskip("music21.converter", reason="music21 is an optional extra")
    abc = (package_folder("music21") / "corpus" / "essenFolksong" / "han1.abc").read_text(encoding="utf-8")
    for number in (1, 2, 3, 50, 200):
        block = next(part for part in abc.split("\nX:") if part.startswith(f"{number}\n"))
        (ours,) = parse_tunes("X:" + block)
        score = converter.parse("X:" + block, format="abc", forceSource=True).stripTies()
        theirs = [
            (None if note.isRest else note.pitch.midi, note.quarterLength) for note in score.flatten().notesAndRests
        ]
        assert list(ours.notes) == theirs


def test_missing_package_error_names_the_package_and_the_remedy():
    with pytest.raises(UsageError, match=r"no_such_package.*make install"):
        package_folder("no_such_package")
