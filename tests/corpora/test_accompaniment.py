import dataclasses

import numpy as np
import pytest

from musictag.corpora.accompaniment import BASS_CHANNEL, CHORDS_CHANNEL, accompany, chord_roots
from musictag.corpora.essen import Tune

# Bars on do, fa and so of C major, then do.
PITCHES = (60, 64, 65, 69, 67, 71, 64, 60)
TUNE = Tune("C1", "Cadence", "Hubei", "haozi", "2/4", 0, tuple((pitch, 1.0) for pitch in PITCHES))
STYLES = ("drone", "pad", "broken", "bass and chords", "comping")


def test_chords_follow_the_tune():
    assert chord_roots(TUNE) == [0, 5, 7, 0]


def test_a_rest_and_a_note_longer_than_a_bar_leave_every_bar_its_chord():
    tune = dataclasses.replace(TUNE, notes=((None, 2.0), (67, 5.0), (60, 1.0)))
    assert len(chord_roots(tune)) == 4
    assert chord_roots(tune)[0] == 0


def chords(tune, style, *, shift=0, bars=4):
    part = accompany(tune, style, np.random.default_rng(0), shift=shift)
    return [stroke for bar in range(bars) for stroke in part(bar)]


@pytest.mark.parametrize("style", STYLES)
def test_every_style_sounds_and_stays_within_its_bar_and_its_channels(style):
    strokes = chords(TUNE, style)
    assert {stroke.channel for stroke in strokes} >= {CHORDS_CHANNEL}
    assert {stroke.channel for stroke in strokes} <= {CHORDS_CHANNEL, BASS_CHANNEL}
    assert all(0 <= stroke.beat < 2 and 24 <= stroke.key <= 84 for stroke in strokes)


def test_chords_have_the_mode_of_the_tune_in_its_key():
    assert {stroke.key % 12 for stroke in chords(TUNE, "pad", bars=1)} == {0, 4, 7}
    minor = dataclasses.replace(TUNE, notes=((60, 1.0), (63, 1.0), (60, 2.0)))
    assert {stroke.key % 12 for stroke in chords(minor, "pad", shift=2, bars=1)} == {2, 5, 9}
    fifths = dataclasses.replace(TUNE, notes=((60, 1.0), (67, 1.0), (60, 2.0)))
    assert {stroke.key % 12 for stroke in chords(fifths, "pad", bars=1)} == {0, 7}


def test_a_drone_is_struck_every_four_bars():
    part = accompany(TUNE, "drone", np.random.default_rng(0), shift=0)
    assert [bool(part(bar)) for bar in range(6)] == [True, False, False, False, True, False]
