import dataclasses

import pytest

from musictag.corpora.essen import Tune
from musictag.corpora.labels import TAGS, describe, energy_of, valence_of
from musictag.corpora.manners import Manner

# The tune has neither third above its last note.
TUNE = Tune("C1", "Fifths", "Hubei", "wuge", "2/4", 0, ((60, 1.0), (67, 1.0), (60, 2.0)))
MINOR = dataclasses.replace(TUNE, notes=((60, 1.0), (63, 1.0), (60, 2.0)))
MAJOR = dataclasses.replace(TUNE, notes=((60, 1.0), (64, 1.0), (60, 2.0)))
MANNER = Manner(
    tempo=100.0,
    swing=0.5,
    detached=0.5,
    lead="piano",
    second="",
    style="drone",
    chords="organ",
    drums="none",
    centre=64.0,
    reverb=0.1,
)


def tags_of(tune=TUNE, *, mean_key=64.0, onsets_per_s=5.0, **manner):
    return set(describe(tune, dataclasses.replace(MANNER, **manner), mean_key=mean_key, onsets_per_s=onsets_per_s))


def test_there_are_23_tags():
    assert len(TAGS) == len(set(TAGS)) == 23


def test_a_middling_song_has_only_the_tag_of_its_instrument():
    assert tags_of() == {"piano"}


@pytest.mark.parametrize(
    ("change", "tags"),
    [
        ({"tempo": 84.9, "detached": 0.6}, {"slow"}),
        ({"tempo": 120.0}, {"fast"}),
        ({"drums": "folk", "tempo": 85.0, "detached": 0.0}, {"drums"}),
        ({"drums": "house", "tempo": 85.0, "detached": 0.0}, {"drums", "four-on-the-floor"}),
        ({"drums": "disco", "tempo": 85.0, "detached": 0.0}, {"drums", "four-on-the-floor", "backbeat"}),
        ({"drums": "rock", "tempo": 85.0, "detached": 0.0}, {"drums", "backbeat"}),
        ({"tune": dataclasses.replace(TUNE, metre="3/4")}, {"triple"}),
        ({"tune": dataclasses.replace(TUNE, metre="3/8")}, {"triple"}),
        ({"swing": 0.6}, {"swing"}),
        ({"onsets_per_s": 10.0}, {"dense"}),
        ({"tune": MINOR, "detached": 0.7}, {"minor"}),
        ({"mean_key": 56.9}, {"low"}),
        ({"mean_key": 72.0}, {"high"}),
        ({"second": "flute"}, {"flute"}),
        ({"chords": "strings"}, {"strings"}),
        ({"second": "brass", "chords": "plucked"}, {"brass", "plucked"}),
        ({"tune": dataclasses.replace(TUNE, genre="haozi")}, {"haozi"}),
    ],
)
def test_each_rule_adds_its_tags_at_its_bound(change, tags):
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
def test_just_inside_the_bounds_no_tag_is_added(change):
    assert tags_of(**change) == {"piano"}


def test_energy_and_valence_are_the_documented_sums():
    manner = dataclasses.replace(MANNER, tempo=110.0, detached=0.2, drums="folk")
    assert energy_of(manner) == pytest.approx(0.5 * 0.5 + 0.25 * 0.2 + 0.25)
    assert valence_of(MAJOR, manner, mean_key=65.0) == pytest.approx(0.4 + 0.3 * 0.5 + 0.15 * 0.2 + 0.15 * 0.5)
    assert valence_of(MINOR, manner, mean_key=40.0) == pytest.approx(0.3 * 0.5 + 0.15 * 0.2)


# Around each bound: energy is 0.005 (tempo - 60) + detached / 4, and a quarter more with drums; valence, at note 50,
# 0.4 (major), 0.2 (neither) or 0 (minor) + 0.003 (tempo - 60) + 0.15 detached.
@pytest.mark.parametrize(
    ("tune", "tempo", "detached", "drums", "tag", "holds"),
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
def test_moods_hold_up_to_their_bounds(tune, tempo, detached, drums, tag, holds):
    found = tags_of(tune, mean_key=50.0, tempo=tempo, detached=detached, drums=drums)
    assert (tag in found) == holds
