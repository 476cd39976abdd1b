import numpy as np
import pytest

from musictag.corpora.essen import Tune
from musictag.corpora.performance_style import (
    HELD_PROGRAMS,
    MELODY_PROGRAMS,
    STRUCK_PROGRAMS,
    sample_style,
)


def tune(genre, metre="2/4"):
    return Tune("C1", "Tune", "Hubei", genre, metre, ((60, 1.0),))


def styles(genre, metre="2/4", n=400):
    rng = np.random.default_rng(0)
    return [sample_style(tune(genre, metre), rng) for _ in range(n)]


@pytest.mark.parametrize("genre", ["shange", "xiaodiao", "haozi", "", "erge"])
def test_styles_are_in_range_and_chords_fit_the_accompaniment(genre):
    for style in styles(genre, n=100):
        assert 50 <= style.tempo <= 170
        assert style.swing == 0.5 or 0.6 <= style.swing < 0.75
        assert 0 <= style.staccato <= 1
        assert 0 <= style.reverb < 0.6
        assert style.lead in MELODY_PROGRAMS
        assert style.doubling in ("", *MELODY_PROGRAMS)
        possible = {"none": ("",), "drone": HELD_PROGRAMS, "pad": HELD_PROGRAMS}.get(
            style.accompaniment, STRUCK_PROGRAMS
        )
        assert style.chords in possible


def test_triple_metre_has_waltz_instead_of_duple_patterns():
    assert {style.drum_pattern for style in styles("xiaodiao", "3/4")} == {"none", "waltz", "folk"}
    assert {style.drum_pattern for style in styles("xiaodiao", "2/4")} == {"none", "house", "disco", "rock", "folk"}


def test_instruments_have_several_programs_and_share_none():
    for table in (MELODY_PROGRAMS, {**STRUCK_PROGRAMS, **HELD_PROGRAMS}):
        programs = [program for row in table.values() for program in row]
        assert min(map(len, table.values())) >= 4
        assert len(set(programs)) == len(programs)


def test_genres_differ_only_in_probabilities():
    mountain, work = styles("shange"), styles("haozi")
    assert np.mean([style.tempo for style in mountain]) < np.mean([style.tempo for style in work])
    assert (
        np.mean([style.drum_pattern != "none" for style in mountain])
        < 0.4
        < 0.8
        < np.mean([style.drum_pattern != "none" for style in work])
    )
    for name in ("lead", "accompaniment", "drum_pattern"):
        assert {getattr(style, name) for style in mountain} == {getattr(style, name) for style in work}
