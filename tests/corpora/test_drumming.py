import numpy as np
import pytest

from musictag.corpora.arrangement import DRUM_CHANNEL
from musictag.corpora.drumming import KICKS, SNARES, make_drums


def bars(pattern, *, beats=2, n_songs=60):
    """Return the first bar of many songs; it has no fill."""
    return [make_drums(pattern, np.random.default_rng(seed), beats=beats)(0) for seed in range(n_songs)]


def beats_of(bar, keys):
    return {hit.beat for hit in bar if hit.key in keys}


@pytest.mark.parametrize("pattern", ["house", "disco"])
def test_kick_is_on_every_beat(pattern):
    assert all(beats_of(bar, KICKS) == {0, 1} for bar in bars(pattern))


@pytest.mark.parametrize("pattern", ["disco", "rock"])
def test_snare_is_on_the_second_beat(pattern):
    assert all(beats_of(bar, SNARES) == {1} for bar in bars(pattern))


def test_rock_has_no_kick_on_the_second_beat():
    kicks = [beats_of(bar, KICKS) for bar in bars("rock")]
    assert {frozenset(beats) for beats in kicks} == {frozenset([0]), frozenset([0, 1.5])}


def test_house_and_folk_have_no_snare():
    assert not any(beats_of(bar, SNARES) for bar in bars("house"))
    assert not any(beats_of(bar, (*SNARES, *KICKS)) for bar in bars("folk"))


def test_waltz_has_its_kick_on_the_first_of_three_beats():
    for bar in bars("waltz", beats=3):
        assert beats_of(bar, KICKS) == {0}
        assert {int(hit.beat) for hit in bar} == {0, 1, 2}


def test_patterns_differ_between_songs_and_have_fills():
    assert len({tuple(bar) for bar in bars("rock")}) > 30
    part = make_drums("rock", np.random.default_rng(0), beats=2)
    filled = [bar for bar in range(16) if part(bar) != part(0)]
    assert filled in ([3, 7, 11, 15], [7, 15], [15])
    assert all(hit.channel == DRUM_CHANNEL for hit in part(15))
