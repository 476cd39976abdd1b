import dataclasses

import numpy as np
import pytest

from musictag.corpora.arrangement import DRUM_CHANNEL, Note, arrange, describe
from musictag.corpora.essen import Tune

# A C major triad in 2/4 and a rest: its third is major.
TUNE = Tune("C1", "Triad", "Hubei", "haozi", "2/4", 0, ((60, 1.0), (64, 1.0), (67, 1.0), (None, 1.0), (60, 2.0)))


def tags_of(tune=TUNE, *, tempo=100.0, keys=(60, 64, 67), channel=0, n_notes=60, seconds=10.0):
    notes = [Note(0.0, 1.0, channel, keys[i % len(keys)], 90) for i in range(n_notes)]
    melody = [Note(0.0, 1.0, 0, key, 90) for key in keys]
    return set(describe(tune, notes[len(keys) :] + melody, tempo=tempo, lead="piano", seconds=seconds))


def test_a_plain_song_has_only_the_tags_of_its_tune_and_lead():
    assert tags_of() == {"haozi", "major", "piano"}


@pytest.mark.parametrize(
    ("change", "tag"),
    [
        ({"tempo": 84.9}, "slow"),
        ({"tempo": 120.0}, "fast"),
        ({"n_notes": 39}, "sparse"),
        ({"n_notes": 90}, "dense"),
        ({"keys": (56,)}, "low"),
        ({"keys": (72,)}, "high"),
        ({"channel": DRUM_CHANNEL}, "drums"),
        ({"tune": dataclasses.replace(TUNE, metre="3/8")}, "triple"),
    ],
)
def test_each_rule_adds_its_tag_at_its_bound(change, tag):
    assert tags_of(**change) == tags_of() | {tag}


@pytest.mark.parametrize(
    "change", [{"tempo": 85.0}, {"tempo": 119.9}, {"n_notes": 40}, {"n_notes": 89}, {"keys": (57,)}, {"keys": (71,)}]
)
def test_just_inside_the_bounds_no_tag_is_added(change):
    assert tags_of(**change) == tags_of()


def test_the_mode_is_that_of_the_third_above_the_last_note():
    minor = dataclasses.replace(TUNE, notes=((60, 1.0), (63, 1.0), (60, 1.0)))
    assert "minor" in tags_of(minor)
    without_third = dataclasses.replace(TUNE, notes=((60, 1.0), (67, 1.0), (60, 1.0)))
    assert not {"minor", "major"} & tags_of(without_third)


def test_a_rare_genre_is_no_tag():
    assert "wuge" not in tags_of(dataclasses.replace(TUNE, genre="wuge"))


def test_an_arrangement_keeps_the_melody_up_to_transposition_and_fills_its_length():
    song = arrange(TUNE, np.random.default_rng(1), seconds=12.0)
    melody = [note.key for note in song.notes if note.channel == 0]
    assert [key - melody[0] for key in melody[:8]] == [0, 4, 7, 0, 0, 4, 7, 0]
    assert 10.0 < max(note.start_s for note in song.notes) < 12.0
    assert min(note.start_s for note in song.notes) >= 0
    assert all(0 <= note.key <= 127 and 1 <= note.velocity <= 127 for note in song.notes)


def test_chance_comes_from_the_generator_alone():
    songs = [arrange(TUNE, np.random.default_rng(seed), seconds=5.0) for seed in (3, 3, 4)]
    assert songs[0] == songs[1] != songs[2]
