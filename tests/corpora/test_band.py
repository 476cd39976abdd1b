import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.corpora.accompaniment import CHORDS_CHANNEL
from musictag.corpora.arrangement import DRUM_CHANNEL
from musictag.corpora.band import DOUBLING_CHANNEL, MELODY_CHANNEL, arrange, arrange_in_style, make_clock
from musictag.corpora.essen import Tune
from musictag.corpora.labels import TAGS
from musictag.corpora.performance_style import MELODY_PROGRAMS, PerformanceStyle

TUNE = Tune("C1", "Triad", "Hubei", "haozi", "2/4", ((60, 0.5), (64, 0.5), (67, 1.0), (None, 1.0), (60, 2.0)))
STYLE = PerformanceStyle(
    tempo=60.0,
    swing=0.5,
    staccato=0.0,
    lead="flute",
    doubling="",
    accompaniment="none",
    chords="",
    drum_pattern="none",
    register=70.0,
    reverb=0.1,
)


def arrangement(seed=0, seconds=20.0, **style):
    return arrange_in_style(dataclasses.replace(STYLE, **style), TUNE, np.random.default_rng(seed), seconds=seconds)


def melody(song):
    return [note for note in song.notes if note.channel == MELODY_CHANNEL]


def test_melody_is_transposed_and_repeated_from_a_bar():
    notes = melody(arrangement())
    keys = [note.key for note in notes]
    assert [key - keys[0] for key in keys[:8]] == [0, 4, 7, 0, 0, 4, 7, 0]
    assert np.mean(keys) == pytest.approx(70, abs=4)
    # The tune has five beats and the repetition starts at the next bar of two beats: after six seconds, plus drift.
    assert notes[4].start_s == pytest.approx(6.0, abs=0.4)
    assert 15 < notes[-1].start_s < 20


def test_swing_delays_only_notes_between_beats():
    straight, swung = (melody(arrangement(swing=swing)) for swing in (0.5, 0.66))
    delays = [late.start_s - early.start_s for early, late in zip(straight, swung, strict=True)]
    assert delays[0] == pytest.approx(0, abs=1e-9)
    assert delays[1] == pytest.approx(0.16, abs=0.01)
    assert delays[2:4] == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize("beat", [0.5, 1.0])
def test_clock_keeps_the_tempo_with_some_drift(beat):
    clock = make_clock(dataclasses.replace(STYLE, tempo=120.0, swing=0.7), np.random.default_rng(1), beat_quarters=beat)
    times = [clock(quarter) for quarter in np.arange(0, 100, 0.05)]
    assert times[0] == 0
    assert min(np.diff(times)) > 0
    assert times[-1] == pytest.approx(50, rel=0.02)
    beats = np.diff([clock(beat * index) for index in range(100)])
    assert 0.001 < np.ptp(beats) / np.mean(beats) < 0.1


def test_staccato_notes_are_shorter():
    long, short = (melody(arrangement(staccato=staccato))[0] for staccato in (0.0, 1.0))
    assert short.end_s - short.start_s < 0.4 * (long.end_s - long.start_s)


def test_doubling_repeats_every_note_in_unison_or_octaves():
    song = arrangement(doubling="brass")
    doubling = [note for note in song.notes if note.channel == DOUBLING_CHANNEL]
    (interval,) = {b.key - a.key for a, b in zip(melody(song), doubling, strict=True)}
    assert interval in (-12, 0, 12)
    assert song.programs[DOUBLING_CHANNEL] in MELODY_PROGRAMS["brass"]
    assert {"flute", "brass"} <= set(song.tags)


def test_instruments_follow_the_style():
    alone = arrangement()
    assert {note.channel for note in alone.notes} == {MELODY_CHANNEL}
    full = arrangement(accompaniment="comping", chords="piano", drum_pattern="rock", doubling="strings")
    assert {note.channel for note in full.notes} >= {MELODY_CHANNEL, DOUBLING_CHANNEL, CHORDS_CHANNEL, DRUM_CHANNEL}
    assert {"piano", "strings", "drums", "backbeat"} <= set(full.tags)
    assert set(full.balance_db) == {note.channel for note in full.notes}
    assert full.balance_db[MELODY_CHANNEL] == 0 >= max(full.balance_db.values())


def test_level_does_not_depend_on_density():
    rng = np.random.default_rng(0)
    songs = [arrange(TUNE, rng, seconds=5.0) for _ in range(300)]
    peaks, counts = np.log([song.peak for song in songs]), [len(song.notes) for song in songs]
    assert abs(np.corrcoef(peaks, counts)[0, 1]) < 0.15
    assert np.ptp(peaks) > np.log(6)


def test_arrangement_depends_only_on_the_seed():
    first, same, other = (arrange(TUNE, np.random.default_rng(seed), seconds=5.0) for seed in (3, 3, 4))
    assert first == same != other


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_all_notes_are_playable(seed):
    song = arrange(TUNE, np.random.default_rng(seed), seconds=5.0)
    assert all(0 <= note.start_s < 5.1 and note.start_s < note.end_s for note in song.notes)
    assert all(0 <= note.key <= 127 and 1 <= note.velocity <= 127 for note in song.notes)
    assert list(song.tags) == [tag for tag in TAGS if tag in song.tags]


@given(st.integers(0, 2**32 - 1), st.floats(50, 170), st.floats(0.5, 0.7), st.sampled_from([0.5, 1.0]))
@settings(max_examples=100, deadline=None)
def test_clock_never_runs_backwards(seed, tempo, swing, beat):
    style = dataclasses.replace(STYLE, tempo=tempo, swing=swing)
    clock = make_clock(style, np.random.default_rng(seed), beat_quarters=beat)
    times = [clock(quarter) for quarter in np.arange(0, 20, 0.05)]
    assert times[0] == 0
    assert min(np.diff(times)) > 0
