import dataclasses

import numpy as np
import pytest

from musictag.corpora.accompaniment import BASS_CHANNEL, CHORDS_CHANNEL, chord_roots, make_accompaniment
from musictag.corpora.essen import Tune

# C major, in bars of two notes: on do, fa and so, then do.
PITCHES = (60, 64, 65, 69, 67, 71, 64, 60)
TUNE = Tune("C1", "Cadence", "Hubei", "haozi", "2/4", tuple((pitch, 1.0) for pitch in PITCHES))
KINDS = ("drone", "pad", "broken", "bass and chords", "comping")


def test_chord_roots_follow_the_melody():
    assert chord_roots(TUNE) == [0, 5, 7, 0]


def test_rests_and_long_notes_leave_no_bar_without_a_chord():
    tune = dataclasses.replace(TUNE, notes=((None, 2.0), (67, 5.0), (60, 1.0)))
    assert len(chord_roots(tune)) == 4
    assert chord_roots(tune)[0] == 0


def accompaniment_notes(tune, kind, *, shift=0, bars=4):
    part = make_accompaniment(tune, kind, np.random.default_rng(0), shift=shift)
    return [note for bar in range(bars) for note in part(bar)]


@pytest.mark.parametrize("kind", KINDS)
def test_notes_stay_in_their_bar_and_channels(kind):
    notes = accompaniment_notes(TUNE, kind)
    assert {note.channel for note in notes} >= {CHORDS_CHANNEL}
    assert {note.channel for note in notes} <= {CHORDS_CHANNEL, BASS_CHANNEL}
    assert all(0 <= note.beat < 2 and 24 <= note.key <= 84 for note in notes)


def test_chords_follow_mode_and_transposition():
    assert {note.key % 12 for note in accompaniment_notes(TUNE, "pad", bars=1)} == {0, 4, 7}
    minor = dataclasses.replace(TUNE, notes=((60, 1.0), (63, 1.0), (60, 2.0)))
    assert {note.key % 12 for note in accompaniment_notes(minor, "pad", shift=2, bars=1)} == {2, 5, 9}
    fifths = dataclasses.replace(TUNE, notes=((60, 1.0), (67, 1.0), (60, 2.0)))
    assert {note.key % 12 for note in accompaniment_notes(fifths, "pad", bars=1)} == {0, 7}


def test_drone_starts_again_every_four_bars():
    part = make_accompaniment(TUNE, "drone", np.random.default_rng(0), shift=0)
    assert [bool(part(bar)) for bar in range(6)] == [True, False, False, False, True, False]
