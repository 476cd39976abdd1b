import dataclasses

import numpy as np
import pytest

from musictag.corpora.accompaniment import CHORDS_CHANNEL
from musictag.corpora.arrangement import DRUM_CHANNEL
from musictag.corpora.band import MELODY_CHANNEL, SECOND_CHANNEL, arrange_as, compose, keep_time
from musictag.corpora.essen import Tune
from musictag.corpora.labels import TAGS
from musictag.corpora.manners import MELODY_PROGRAMS, Manner

TUNE = Tune("C1", "Triad", "Hubei", "haozi", "2/4", 0, ((60, 0.5), (64, 0.5), (67, 1.0), (None, 1.0), (60, 2.0)))
MANNER = Manner(
    tempo=60.0,
    swing=0.5,
    detached=0.0,
    lead="flute",
    second="",
    style="none",
    chords="",
    drums="none",
    centre=70.0,
    reverb=0.1,
)


def played(seed=0, seconds=20.0, **manner):
    return arrange_as(dataclasses.replace(MANNER, **manner), TUNE, np.random.default_rng(seed), seconds=seconds)


def melody(song):
    return [note for note in song.notes if note.channel == MELODY_CHANNEL]


def test_the_melody_keeps_its_shape_begins_anew_on_a_bar_and_fills_the_song():
    notes = melody(played())
    keys = [note.key for note in notes]
    assert [key - keys[0] for key in keys[:8]] == [0, 4, 7, 0, 0, 4, 7, 0]
    assert np.mean(keys) == pytest.approx(70, abs=4)
    # Five beats, then a bar of two that the tune only half fills: six beats of a second, but for drift.
    assert notes[4].start_s == pytest.approx(6.0, abs=0.4)
    assert 15 < notes[-1].start_s < 20


def test_swing_delays_what_falls_between_beats_and_nothing_else():
    straight, swung = (melody(played(swing=swing)) for swing in (0.5, 0.66))
    delays = [late.start_s - early.start_s for early, late in zip(straight, swung, strict=True)]
    assert delays[0] == pytest.approx(0, abs=1e-9)
    assert delays[1] == pytest.approx(0.16, abs=0.01)
    assert delays[2:4] == pytest.approx([0, 0], abs=1e-9)


@pytest.mark.parametrize("beat", [0.5, 1.0])
def test_time_runs_forward_at_the_tempo_but_for_a_drift(beat):
    clock = keep_time(dataclasses.replace(MANNER, tempo=120.0, swing=0.7), np.random.default_rng(1), beat=beat)
    times = [clock(quarter) for quarter in np.arange(0, 100, 0.05)]
    assert times[0] == 0
    assert min(np.diff(times)) > 0
    assert times[-1] == pytest.approx(50, rel=0.02)
    beats = np.diff([clock(beat * index) for index in range(100)])
    assert 0.001 < np.ptp(beats) / np.mean(beats) < 0.1


def test_detached_notes_are_shorter():
    legato, staccato = (melody(played(detached=detached))[0] for detached in (0.0, 1.0))
    assert staccato.end_s - staccato.start_s < 0.4 * (legato.end_s - legato.start_s)


def test_a_second_player_doubles_every_note_in_unison_or_octaves():
    song = played(second="brass")
    second = [note for note in song.notes if note.channel == SECOND_CHANNEL]
    (interval,) = {b.key - a.key for a, b in zip(melody(song), second, strict=True)}
    assert interval in (-12, 0, 12)
    assert song.programs[SECOND_CHANNEL] in MELODY_PROGRAMS["brass"]
    assert {"flute", "brass"} <= set(song.tags)


def test_players_join_as_the_manner_says():
    alone = played()
    assert {note.channel for note in alone.notes} == {MELODY_CHANNEL}
    full = played(style="comping", chords="piano", drums="rock", second="strings")
    assert {note.channel for note in full.notes} >= {MELODY_CHANNEL, SECOND_CHANNEL, CHORDS_CHANNEL, DRUM_CHANNEL}
    assert {"piano", "strings", "drums", "backbeat"} <= set(full.tags)
    assert set(full.balance_db) == {note.channel for note in full.notes}
    assert full.balance_db[MELODY_CHANNEL] == 0 >= max(full.balance_db.values())


def test_level_and_density_are_no_sign_of_each_other():
    rng = np.random.default_rng(0)
    songs = [compose(TUNE, rng, seconds=5.0) for _ in range(300)]
    peaks, counts = np.log([song.peak for song in songs]), [len(song.notes) for song in songs]
    assert abs(np.corrcoef(peaks, counts)[0, 1]) < 0.15
    assert np.ptp(peaks) > np.log(6)


def test_chance_comes_from_the_generator_alone_and_every_song_can_be_played():
    songs = [compose(TUNE, np.random.default_rng(seed), seconds=5.0) for seed in (3, 3, *range(40))]
    assert songs[0] == songs[1] != songs[2]
    for song in songs:
        assert all(0 <= note.start_s < 5.1 and note.start_s < note.end_s for note in song.notes)
        assert all(0 <= note.key <= 127 and 1 <= note.velocity <= 127 for note in song.notes)
        assert list(song.tags) == [tag for tag in TAGS if tag in song.tags]
