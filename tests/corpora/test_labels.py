import dataclasses

import pytest

from musictag.corpora.essen import Tune
from musictag.corpora.labels import TAGS, assign_tags, compute_energy, compute_valence
from musictag.corpora.performance_style import PerformanceStyle

# The tune has neither third above its last note.
TUNE = Tune("C1", "Fifths", "Hubei", "wuge", "2/4", ((60, 1.0), (67, 1.0), (60, 2.0)))
MINOR = dataclasses.replace(TUNE, notes=((60, 1.0), (63, 1.0), (60, 2.0)))
MAJOR = dataclasses.replace(TUNE, notes=((60, 1.0), (64, 1.0), (60, 2.0)))
STYLE = PerformanceStyle(
    tempo=100.0,
    swing=0.5,
    staccato=0.5,
    lead="piano",
    doubling="",
    accompaniment="drone",
    chords="organ",
    drum_pattern="none",
    register=64.0,
    reverb=0.1,
)


def tags_of(tune=TUNE, *, mean_key=64.0, onsets_per_s=5.0, **style):
    return set(assign_tags(tune, dataclasses.replace(STYLE, **style), mean_key=mean_key, onsets_per_s=onsets_per_s))


def test_there_are_23_tags():
    assert len(TAGS) == len(set(TAGS)) == 23


def test_average_song_has_only_its_instrument_tag():
    assert tags_of() == {"piano"}


@pytest.mark.parametrize(
    ("change", "tags"),
    [
        ({"tempo": 84.9, "staccato": 0.6}, {"slow"}),
        ({"tempo": 120.0}, {"fast"}),
        ({"drum_pattern": "folk", "tempo": 85.0, "staccato": 0.0}, {"drums"}),
        ({"drum_pattern": "house", "tempo": 85.0, "staccato": 0.0}, {"drums", "four-on-the-floor"}),
        ({"drum_pattern": "disco", "tempo": 85.0, "staccato": 0.0}, {"drums", "four-on-the-floor", "backbeat"}),
        ({"drum_pattern": "rock", "tempo": 85.0, "staccato": 0.0}, {"drums", "backbeat"}),
        ({"tune": dataclasses.replace(TUNE, metre="3/4")}, {"triple"}),
        ({"tune": dataclasses.replace(TUNE, metre="3/8")}, {"triple"}),
        ({"swing": 0.6}, {"swing"}),
        ({"onsets_per_s": 10.0}, {"dense"}),
        ({"tune": MINOR, "staccato": 0.7}, {"minor"}),
        ({"mean_key": 56.9}, {"low"}),
        ({"mean_key": 72.0}, {"high"}),
        ({"doubling": "flute"}, {"flute"}),
        ({"chords": "strings"}, {"strings"}),
        ({"doubling": "brass", "chords": "plucked"}, {"brass", "plucked"}),
        ({"tune": dataclasses.replace(TUNE, genre="haozi")}, {"haozi"}),
    ],
)
def test_rules_hold_at_their_bounds(change, tags):
    assert tags_of(**change) == {"piano"} | tags


@pytest.mark.parametrize(
    "change",
    [
        {"tempo": 85.0},
        {"tempo": 119.9},
        {"swing": 0.59},
        {"onsets_per_s": 9.9},
        {"tune": MAJOR},
        {"mean_key": 57.0},
        {"mean_key": 71.9},
        {"chords": "mallets"},
    ],
)
def test_no_rule_holds_just_inside_its_bounds(change):
    assert tags_of(**change) == {"piano"}


def test_energy_and_valence_are_weighted_sums():
    style = dataclasses.replace(STYLE, tempo=110.0, staccato=0.2, drum_pattern="folk")
    assert compute_energy(style) == pytest.approx(0.5 * 0.5 + 0.25 * 0.2 + 0.25)
    assert compute_valence(MAJOR, style, mean_key=65.0) == pytest.approx(0.4 + 0.3 * 0.5 + 0.15 * 0.2 + 0.15 * 0.5)
    assert compute_valence(MINOR, style, mean_key=40.0) == pytest.approx(0.3 * 0.5 + 0.15 * 0.2)


# Both sides of each bound. energy = 0.005 (tempo - 60) + staccato / 4, plus 0.25 with drums. At note 50,
# valence = 0.4 (major), 0.2 (neither) or 0 (minor) + 0.003 (tempo - 60) + 0.15 staccato.
@pytest.mark.parametrize(
    ("tune", "tempo", "staccato", "drum_pattern", "tag", "holds"),
    [
        (TUNE, 110.0, 0.41, "folk", "energetic", True),
        (TUNE, 110.0, 0.39, "folk", "energetic", False),
        (TUNE, 100.0, 0.19, "none", "calm", True),
        (TUNE, 100.0, 0.21, "none", "calm", False),
        (MAJOR, 110.0, 0.41, "none", "happy", True),  # energy 0.3525, valence 0.6115
        (MAJOR, 110.0, 0.39, "none", "happy", False),  # energy 0.3475
        (TUNE, 110.0, 1.0, "folk", "happy", False),  # valence 0.5
        (MAJOR, 110.0, 0.32, "folk", "happy", False),  # valence 0.598
        (TUNE, 110.0, 0.19, "none", "sad", True),  # energy 0.2975, valence 0.3785
        (TUNE, 110.0, 0.21, "none", "sad", False),  # valence 0.3815
        (MINOR, 110.0, 0.39, "none", "sad", True),  # energy 0.3475
        (MINOR, 110.0, 0.41, "none", "sad", False),  # energy 0.3525
    ],
)
def test_mood_rules_hold_at_their_bounds(tune, tempo, staccato, drum_pattern, tag, holds):
    tags = tags_of(tune, mean_key=50.0, tempo=tempo, staccato=staccato, drum_pattern=drum_pattern)
    assert (tag in tags) == holds
