import dataclasses

import pytest

from musictag.corpora.essen import Tune, read_tunes
from musictag.corpora.variants import RUN_STEPS, SHARED_RUNS, distinct_tunes, melody_families


def tune(number, *steps, start=60):
    pitches = [start]
    for step in steps:
        pitches.append(pitches[-1] + step)
    return Tune(f"C{number}", f"Tune {number}", "Hubei", "shange", "2/4", 0, tuple((pitch, 1.0) for pitch in pitches))


SHARED = (2, 3, -2, -1, 4, 1, -5, 2, 2, -3, 5, -2, 6, -4, 3)
ELSE = (7, 7, -7, 8, -9, -7, 8, 7, -8, -9, 9, 7, -9, 8, -8)
A = tune(1, 7, 7, *SHARED, *ELSE)
B = tune(2, -7, *SHARED, *ELSE[::-1], start=65)


@pytest.mark.parametrize(
    "again",
    [{"tune_id": "C1"}, {"title": "Tune 1"}, {"notes": tuple((pitch + 5, length) for pitch, length in A.notes)}],
)
def test_an_id_a_title_or_an_opening_seen_before_is_no_tune_of_its_own(again):
    other = tune(3, 1, 2, 3)
    assert distinct_tunes([A, dataclasses.replace(other, **again), B]) == [A, B]
    assert distinct_tunes([A, other, B]) == [A, other, B]


def test_tunes_with_enough_runs_in_common_are_one_family_in_any_key_and_rhythm():
    assert len(SHARED) == RUN_STEPS + SHARED_RUNS - 1
    assert melody_families([tune(0, *ELSE[::2] * 3), A, B]) == [0, 1, 1]
    slower = dataclasses.replace(B, notes=tuple((pitch, 2.0) for pitch, _ in B.notes))
    assert melody_families([A, slower]) == [0, 0]


def test_one_run_less_is_no_family_but_in_a_short_tune():
    assert melody_families([A, tune(2, -7, *SHARED[1:], *ELSE[::-1])]) == [0, 1]
    assert melody_families([A, tune(2, -7, *SHARED[1:])]) == [0, 0]


def test_a_note_struck_again_and_rests_do_not_hide_a_variant():
    notes = (B.notes[0], *((None, 1.0), *((note[0], 0.5) for note in B.notes for _ in range(2))))
    assert melody_families([A, dataclasses.replace(B, notes=notes)]) == [0, 0]


def test_a_third_tune_links_two():
    link = tune(3, *SHARED, 11, *SHARED[::-1])
    assert melody_families([A, tune(2, *SHARED[::-1]), link]) == [0, 0, 0]
    assert melody_families([A, tune(2, *SHARED[::-1])]) == [0, 1]


def test_a_tune_of_a_few_notes_is_its_own_family():
    assert melody_families([tune(1, 2), tune(2, 2)]) == [0, 1]


def test_the_collection_has_tunes_enough_and_no_family_swallows_it():
    tunes = distinct_tunes(read_tunes())
    families = melody_families(tunes)
    assert len(tunes) >= 1040
    assert max(families.count(family) for family in families) <= 0.05 * len(tunes)
