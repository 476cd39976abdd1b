import numpy as np
import pytest

from musictag.corpora.essen import Tune
from musictag.corpora.manners import (
    HELD_PROGRAMS,
    MELODY_PROGRAMS,
    STRUCK_PROGRAMS,
    draw_manner,
)


def tune(genre, metre="2/4"):
    return Tune("C1", "Tune", "Hubei", genre, metre, 0, ((60, 1.0),))


def manners(genre, metre="2/4", n=400):
    rng = np.random.default_rng(0)
    return [draw_manner(tune(genre, metre), rng) for _ in range(n)]


@pytest.mark.parametrize("genre", ["shange", "xiaodiao", "haozi", "", "erge"])
def test_a_manner_is_possible_and_its_chords_suit_its_style(genre):
    for manner in manners(genre, n=100):
        assert 50 <= manner.tempo <= 170
        assert manner.swing == 0.5 or 0.6 <= manner.swing < 0.75
        assert 0 <= manner.detached <= 1
        assert 0 <= manner.reverb < 0.6
        assert manner.lead in MELODY_PROGRAMS
        assert manner.second in ("", *MELODY_PROGRAMS)
        suiting = {"none": ("",), "drone": HELD_PROGRAMS, "pad": HELD_PROGRAMS}.get(manner.style, STRUCK_PROGRAMS)
        assert manner.chords in suiting


def test_triple_metre_has_waltzes_in_place_of_patterns_in_two():
    assert {manner.drums for manner in manners("xiaodiao", "3/4")} == {"none", "waltz", "folk"}
    assert {manner.drums for manner in manners("xiaodiao", "2/4")} == {"none", "house", "disco", "rock", "folk"}


def test_every_instrument_has_several_programs_and_only_one_instrument_has_a_program():
    for table in (MELODY_PROGRAMS, {**STRUCK_PROGRAMS, **HELD_PROGRAMS}):
        programs = [program for its in table.values() for program in its]
        assert min(map(len, table.values())) >= 4
        assert len(set(programs)) == len(programs)


def test_genres_lean_but_no_leaning_is_certain():
    mountain, work = manners("shange"), manners("haozi")
    assert np.mean([m.tempo for m in mountain]) < np.mean([m.tempo for m in work])
    assert np.mean([m.drums != "none" for m in mountain]) < 0.4 < 0.8 < np.mean([m.drums != "none" for m in work])
    for name in ("lead", "style", "drums"):
        assert {getattr(m, name) for m in mountain} == {getattr(m, name) for m in work}
