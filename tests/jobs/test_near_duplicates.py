import numpy as np
import pytest

from musictag.catalog.splits import Labels
from musictag.features.config import FeatureConfig
from musictag.features.table import SCHEMA, encode_clips, open_features
from musictag.jobs.near_duplicates import echo_near_duplicates, find_near_duplicates
from musictag.storage import commits
from sample_tables import find_files

CONFIG = FeatureConfig(clip_frames=20)


@pytest.fixture
def features(tmp_path):
    """Six tracks: `b` is `a` with small changes, `d` is `c`, and two are silent."""
    rng = np.random.default_rng(0)
    uri = str(tmp_path / "features")
    open_features(uri, CONFIG, None)
    clips = {name: rng.uniform(0, 6, (2, 20, 96)) * rng.uniform(0, 1, 96) for name in "ac"}
    clips |= {"b": clips["a"] + rng.normal(scale=0.02, size=(2, 20, 96)), "d": clips["c"].copy()}
    clips |= {"e": np.zeros((1, 20, 96)), "f": np.zeros((1, 20, 96))}
    rows = [
        {"track_id": name, "clips": encode_clips(each), "start_s": [0.0, 0.32][: len(each)], "duration_s": 0.64}
        for name, each in clips.items()
    ]
    commits.append_rows(uri, SCHEMA, rows)
    return uri


def files_of(features):
    return find_files(features, set("abcdef"))


def labels(**tracks: str) -> Labels:
    tags = {split: {name: ["x"] for name in names} for split, names in tracks.items()}
    return Labels(tags, 0, (), (), {}, {}, {}, ())


def test_pairs_in_different_splits_are_reported(features, capsys):
    made = labels(train="ace", validation="bd", test="f")
    pairs = find_near_duplicates(made, features, files_of(features), CONFIG)
    assert [set(pair) for pair in pairs] == [{"c", "d"}, {"a", "b"}]  # the nearest first; silence is no recording
    echo_near_duplicates(pairs, made)
    out = capsys.readouterr().out
    assert "2 pairs of tracks in different splits sound nearly the same" in out
    assert "c (train) and d (validation); a (train) and b (validation)" in out


def test_pairs_in_one_split_are_not_reported(features, capsys):
    made = labels(train="abcd", test="e", validation="")
    assert find_near_duplicates(made, features, files_of(features), CONFIG) == []
    echo_near_duplicates([], made)
    assert capsys.readouterr().out == ""


def test_long_lists_are_cut(capsys):
    made = labels(train=[f"a{n}" for n in range(25)], test=[f"b{n}" for n in range(25)])
    echo_near_duplicates([(f"a{n}", f"b{n}") for n in range(25)], made)
    assert "; and 15 more." in capsys.readouterr().out
