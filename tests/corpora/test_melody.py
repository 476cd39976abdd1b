import dataclasses

import pytest

from musictag.corpora.essen import Tune
from musictag.corpora.melody import beats_per_bar, quarters_per_beat, sounding_notes, third

TUNE = Tune("C1", "Triad", "Hubei", "haozi", "2/4", ((60, 1.0), (64, 1.0), (None, 1.0), (60, 2.0)))


def test_sounding_notes_leave_out_rests():
    assert sounding_notes(TUNE) == [(60, 1.0), (64, 1.0), (60, 2.0)]


@pytest.mark.parametrize(
    ("pitches", "expected"),
    [((64, 60), 4), ((63, 60), 3), ((67, 60), None), ((63, 64, 60), None), ((63, 64, 75, 60), 3), ((60, 64), None)],
)
def test_third_is_counted_from_the_last_note(pitches, expected):
    assert third(dataclasses.replace(TUNE, notes=tuple((pitch, 1.0) for pitch in pitches))) == expected


@pytest.mark.parametrize(
    ("metre", "beats", "quarters"), [("2/4", 2, 1.0), ("none", 2, 1.0), ("3/4", 3, 1.0), ("3/8", 3, 0.5)]
)
def test_beats_follow_the_metre(metre, beats, quarters):
    tune = dataclasses.replace(TUNE, metre=metre)
    assert (beats_per_bar(tune), quarters_per_beat(tune)) == (beats, quarters)
