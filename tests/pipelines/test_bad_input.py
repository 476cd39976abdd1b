import shutil

import pytest

from musictag.engines import mlflow_registry, mlflow_runs
from musictag.models.artifact import load_model


def one_error(err):
    lines = [line for line in err.splitlines() if line.strip()]
    return "Traceback" not in err and len(lines) == 1 and lines[0].startswith("error: ")


@pytest.fixture
def own_features(corpus, tmp_path):
    """A copy, since training writes the splits table next to the features."""
    return shutil.copytree(corpus.features, tmp_path / "features")


def write_catalog(path, rows):
    path.write_text("\n".join(["track_id,uri,artist,tags,split", *(",".join(row) for row in rows)]) + "\n")
    return path


def test_line_runs_on_five_tracks_with_missing_labels_and_features(own_home, corpus, call, own_features, tmp_path):
    tags = ("tone", "tone;noise", "noise", "tone", "tone")
    rows = [(f"track-{n:02d}", f"{n}.wav", "", tag, "") for n, tag in enumerate(tags)]
    rows += [("elsewhere", "elsewhere.wav", "", "tone", "train"), ("track-05", "5.wav", "", "", "")]
    catalog = write_catalog(tmp_path / "catalog.csv", rows)
    where = "--catalog", catalog, "--features", own_features
    options = "--vocabulary", "tone", "--epochs", 1, "--batch-size", 2, "--clips-per-epoch", 1
    code, out, err = call(own_home, "train", *where, *options)
    assert (code, "Traceback" in err) == (0, False), err
    assert "tracks: 3 train, 1 validation, 1 test; left out: 1 without tags, 1 (elsewhere) tagged but without" in out
    assert "features, 44 (track-06, track-07, track-08, \u2026) with features but not in the catalog" in out
    mlflow_runs.connect()
    _, spec = load_model(mlflow_registry.fetch("models:/musictag@candidate").folder)
    assert spec.vocabulary == ("tone",)

    code, out, err = call(own_home, "evaluate", *where)
    assert (code, err) == (0, "")
    assert "1 (elsewhere) tagged but without features, 44 (track-06," in out
    assert "1 tracks of the test split, 1 tags" in out
    assert "No 95 % intervals: all tracks are of one artist" in out
    code, out, err = call(own_home, "promote")
    assert (code, err) == (0, "")
    assert "there is no champion yet; macro PR-AUC 1.0000 on 1 test tracks" in out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ((), "no track of the validation split has both tags and features: add tracks or change splits"),
        (("--init", "msd-musicnn"), "and features have 1: add tracks or change splits"),
    ],
)
def test_single_artist_cannot_be_split(own_home, corpus, call, own_features, tmp_path, options, complaint):
    rows = [(f"track-{n:02d}", f"{n}.wav", "everybody", "tone", "") for n in range(48)]
    catalog = write_catalog(tmp_path / "catalog.csv", rows)
    code, _, err = call(own_home, "train", "--catalog", catalog, "--features", own_features, *options)
    assert code == 2
    assert complaint in err
    assert one_error(err)


def test_tag_without_train_tracks_cannot_be_learned(own_home, corpus, call, own_features, tmp_path):
    tags = (*["tone"] * 6, "noise", "noise")
    splits = (*["train"] * 6, "validation", "test")
    rows = [(f"track-{n:02d}", f"{n}.wav", "", *row) for n, row in enumerate(zip(tags, splits, strict=True))]
    where = "--catalog", write_catalog(tmp_path / "catalog.csv", rows), "--features", own_features
    code, _, err = call(own_home, "train", *where, "--vocabulary", "noise")
    assert code == 2
    assert "no training track has the tag 'noise'" in err
    assert one_error(err)


def test_tags_missing_in_a_split_are_named_before_training(own_home, corpus, call, own_features, tmp_path):
    tags = ("tone", "tone;noise", "tone", "clicks")
    splits = ("train", "train", "validation", "test")
    rows = [(f"track-{n:02d}", f"{n}.wav", "", *row) for n, row in enumerate(zip(tags, splits, strict=True))]
    where = "--catalog", write_catalog(tmp_path / "catalog.csv", rows), "--features", own_features
    code, out, err = call(
        own_home, "train", *where, "--min-precision", "polka=0.9"
    )  # an unknown tag ends the run early
    assert (code, "the vocabulary has no tag 'polka'" in err) == (2, True)
    assert "not learned, since no train track has them: clicks\n" in out
    assert "never predicted, since no validation track has them to fit a threshold on: noise\n" in out


def test_no_track_with_tags_and_features_is_refused(own_home, corpus, call, own_features, tmp_path):
    rows = [(f"new-{n}", f"{n}.wav", f"artist {n}", "tone", "") for n in range(9)]
    where = "--catalog", write_catalog(tmp_path / "catalog.csv", rows), "--features", own_features
    code, out, err = call(own_home, "train", *where)
    assert code == 2
    assert "tracks: 0 train, 0 validation, 0 test; left out: 0 without tags, 9 (new-0, new-1, new-2, \u2026)" in out
    assert "50 (track-00, track-01, track-02, \u2026) with features but not in the catalog" in out
    assert "no track of the train split has both tags and features" in err
    assert one_error(err)
