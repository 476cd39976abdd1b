import dataclasses

import pytest

from musictag.corpora.essen import Tune, read_tunes
from musictag.corpora.variants import MIN_SHARED_NGRAMS, NGRAM_STEPS, deduplicate_tunes, group_variants


def tune(number, *steps, start=60):
    pitches = [start]
    for step in steps:
        pitches.append(pitches[-1] + step)
    return Tune(f"C{number}", f"Tune {number}", "Hubei", "shange", "2/4", tuple((pitch, 1.0) for pitch in pitches))


SHARED = (2, 3, -2, -1, 4, 1, -5, 2, 2, -3, 5, -2, 6, -4, 3)
OTHER = (7, 7, -7, 8, -9, -7, 8, 7, -8, -9, 9, 7, -9, 8, -8)
A = tune(1, 7, 7, *SHARED, *OTHER)
B = tune(2, -7, *SHARED, *OTHER[::-1], start=65)


@pytest.mark.parametrize(
    "repeated",
    [{"tune_id": "C1"}, {"title": "Tune 1"}, {"notes": tuple((pitch + 5, length) for pitch, length in A.notes)}],
)
def test_repeated_id_title_or_opening_is_a_duplicate(repeated):
    other = tune(3, 1, 2, 3)
    assert deduplicate_tunes([A, dataclasses.replace(other, **repeated), B]) == [A, B]
    assert deduplicate_tunes([A, other, B]) == [A, other, B]


def test_variants_are_grouped_in_any_key_and_rhythm():
    assert len(SHARED) == NGRAM_STEPS + MIN_SHARED_NGRAMS - 1
    assert group_variants([tune(0, *OTHER[::2] * 3), A, B]) == [0, 1, 1]
    slower = dataclasses.replace(B, notes=tuple((pitch, 2.0) for pitch, _ in B.notes))
    assert group_variants([A, slower]) == [0, 0]


def test_too_few_shared_ngrams_make_no_group_except_in_short_tunes():
    assert group_variants([A, tune(2, -7, *SHARED[1:], *OTHER[::-1])]) == [0, 1]
    assert group_variants([A, tune(2, -7, *SHARED[1:])]) == [0, 0]


def test_repeated_notes_and_rests_are_ignored():
    notes = (B.notes[0], *((None, 1.0), *((note[0], 0.5) for note in B.notes for _ in range(2))))
    assert group_variants([A, dataclasses.replace(B, notes=notes)]) == [0, 0]


def test_groups_are_transitive():
    link = tune(3, *SHARED, 11, *SHARED[::-1])
    assert group_variants([A, tune(2, *SHARED[::-1]), link]) == [0, 0, 0]
    assert group_variants([A, tune(2, *SHARED[::-1])]) == [0, 1]


def test_very_short_tunes_are_not_grouped():
    assert group_variants([tune(1, 2), tune(2, 2)]) == [0, 1]


@pytest.mark.slow
def test_collection_has_enough_tunes_and_no_large_group():
    tunes = deduplicate_tunes(read_tunes())
    groups = group_variants(tunes)
    assert len(tunes) >= 1040
    assert max(groups.count(group) for group in groups) <= 0.05 * len(tunes)
