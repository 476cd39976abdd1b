import itertools

import numpy as np
import pytest

from musictag.catalog.vocabulary import (
    by_tag,
    coverage_warnings,
    encode,
    make_vocabulary,
    targets_by_track,
    unknown_tags,
)
from musictag.errors import VocabularyError

TAG_LISTS = [["rock", "guitar"], [], ["Jazz", "guitar"], ["étude"]]


def test_vocabulary_is_sorted_by_code_point_in_any_order_of_tracks():
    for order in itertools.permutations(TAG_LISTS):
        assert make_vocabulary(order) == ("Jazz", "guitar", "rock", "étude")


def test_chosen_tags_are_sorted_and_unique():
    assert make_vocabulary(TAG_LISTS, only=["rock", "Jazz", "rock"]) == ("Jazz", "rock")


def test_chosen_tag_without_track_is_an_error_with_similar_tags():
    with pytest.raises(VocabularyError, match=r"'gitar' \(close: 'guitar'\); 'polka'"):
        make_vocabulary(TAG_LISTS, only=["rock", "polka", "gitar"])


@pytest.mark.parametrize(("tag_lists", "only"), [([[], []], None), ([], None), (TAG_LISTS, [])])
def test_empty_vocabulary_is_an_error(tag_lists, only):
    with pytest.raises(VocabularyError, match="at least one tag"):
        make_vocabulary(tag_lists, only)


def test_encode_returns_a_row_per_track_and_a_column_per_tag():
    targets = encode(TAG_LISTS, ("Jazz", "guitar", "rock"))
    assert targets.dtype == np.bool_
    assert targets.tolist() == [[False, True, True], [False, False, False], [True, True, False], [False, False, False]]


def test_encode_without_tracks_keeps_the_columns():
    assert encode([], ("a", "b")).shape == (0, 2)


def test_unknown_tags_count_tracks_most_frequent_first():
    tag_lists = [["b", "x"], ["a", "b", "b"], ["c", "x"], ["d"]]
    assert list(unknown_tags(tag_lists, ("x", "d")).items()) == [("b", 2), ("a", 1), ("c", 1)]


def test_targets_by_track_have_the_track_ids_as_keys():
    targets = targets_by_track({"a": ["rock", "calm"], "b": []}, ("calm", "rock"))
    assert {track_id: row.tolist() for track_id, row in targets.items()} == {"a": [True, True], "b": [False, False]}


def by_split(train, validation, test=()):
    return {"train": dict(enumerate(train)), "validation": dict(enumerate(validation)), "test": dict(enumerate(test))}


def fold(train, validation):
    return {"train": dict(enumerate(train)), "validation": dict(enumerate(validation))}


def test_tags_missing_from_train_or_validation_are_reported():
    train, validation = [["a", "b"], ["c"]], [["a", "d"], []]
    assert coverage_warnings(("a", "b", "c"), [fold(train, validation)], by_split(train, validation, [["e", "a"]])) == [
        "not learned, since no train track has them: d, e",
        "never predicted, since no validation track has them to fit a threshold on: b, c",
    ]


def test_tags_missing_from_validation_are_reported():
    train, validation = [["a"], ["b"]], [["b"]]
    assert coverage_warnings(("a",), [fold(train, validation)], by_split(train, validation)) == [
        "never predicted, since no validation track has them to fit a threshold on: a"
    ]


def test_tags_missing_from_the_train_tracks_of_a_fold_are_reported():
    folds = [fold([["a"], ["b"]], [["a"]]), fold([["a"], ["a"]], [["b"]])]
    assert coverage_warnings(("a", "b"), folds, by_split([["a"], ["a"]], [["b"]])) == [
        "not learned in fold 2, which validates on all their tracks: b"
    ]


@pytest.mark.parametrize("vocabulary", [("a", "b"), ("a",)])
def test_no_warning_if_all_splits_have_all_tags(vocabulary):
    train, validation = [["a", "b"]], [["b", "a"], []]
    assert coverage_warnings(vocabulary, [fold(train, validation)], by_split(train, validation, [["b"]])) == []


def test_by_tag_follows_the_order_of_the_vocabulary():
    np.testing.assert_array_equal(by_tag({"rock": 0.5, "Jazz": 1.0}, ("Jazz", "guitar", "rock")), [1.0, np.nan, 0.5])


def test_by_tag_rejects_unknown_tags_with_similar_ones():
    with pytest.raises(VocabularyError, match=r"the vocabulary has no tag 'jazz' \(close: 'Jazz'\)"):
        by_tag({"jazz": 0.5}, ("Jazz", "guitar"))


def test_tags_of_an_old_model_are_found_in_their_one_form():
    vocabulary = ("ro\u0308ck", " pop")
    assert encode([["r\u00f6ck"], ["pop"]], vocabulary).tolist() == [[True, False], [False, True]]
    assert unknown_tags([["r\u00f6ck", "jazz"]], vocabulary) == {"jazz": 1}
    np.testing.assert_array_equal(by_tag({"r\u00f6ck": 0.5}, vocabulary), [0.5, np.nan])
    assert make_vocabulary([["r\u00f6ck", "hip hop"]], [" hip  hop", "ro\u0308ck"]) == ("hip hop", "r\u00f6ck")
