import itertools

import numpy as np
import pytest

from musictag.errors import VocabularyError
from musictag.vocabulary import by_tag, encode, make_vocabulary, targets_by_track, unknown_tags

TAG_LISTS = [["rock", "guitar"], [], ["Jazz", "guitar"], ["étude"]]


def test_a_vocabulary_is_sorted_by_code_point_whatever_the_order_of_tracks():
    for order in itertools.permutations(TAG_LISTS):
        assert make_vocabulary(order) == ("Jazz", "guitar", "rock", "étude")


def test_chosen_tags_are_sorted_and_unique():
    assert make_vocabulary(TAG_LISTS, only=["rock", "Jazz", "rock"]) == ("Jazz", "rock")


def test_a_chosen_tag_on_no_track_is_an_error_with_close_matches():
    with pytest.raises(VocabularyError, match=r"'gitar' \(close: 'guitar'\); 'polka'"):
        make_vocabulary(TAG_LISTS, only=["rock", "polka", "gitar"])


@pytest.mark.parametrize(("tag_lists", "only"), [([[], []], None), ([], None), (TAG_LISTS, [])])
def test_a_vocabulary_without_tags_is_an_error(tag_lists, only):
    with pytest.raises(VocabularyError, match="at least one tag"):
        make_vocabulary(tag_lists, only)


def test_encode_gives_a_row_per_track_and_a_column_per_tag():
    targets = encode(TAG_LISTS, ("Jazz", "guitar", "rock"))
    assert targets.dtype == np.bool_
    assert targets.tolist() == [[False, True, True], [False, False, False], [True, True, False], [False, False, False]]


def test_encode_without_tracks_keeps_the_columns():
    assert encode([], ("a", "b")).shape == (0, 2)


def test_unknown_tags_count_tracks_most_frequent_first():
    tag_lists = [["b", "x"], ["a", "b", "b"], ["c", "x"], ["d"]]
    assert list(unknown_tags(tag_lists, ("x", "d")).items()) == [("b", 2), ("a", 1), ("c", 1)]


def test_targets_by_track_keep_the_ids():
    targets = targets_by_track({"a": ["rock", "calm"], "b": []}, ("calm", "rock"))
    assert {track_id: row.tolist() for track_id, row in targets.items()} == {"a": [True, True], "b": [False, False]}


def test_values_of_some_tags_stand_in_the_order_of_the_vocabulary():
    np.testing.assert_array_equal(by_tag({"rock": 0.5, "Jazz": 1.0}, ("Jazz", "guitar", "rock")), [1.0, np.nan, 0.5])


def test_values_of_a_tag_outside_the_vocabulary_are_refused_with_a_hint():
    with pytest.raises(VocabularyError, match=r"the vocabulary has no tag 'jazz' \(close: 'Jazz'\)"):
        by_tag({"jazz": 0.5}, ("Jazz", "guitar"))
