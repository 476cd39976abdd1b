import re

import numpy as np
import pytest
from mlflow import MlflowClient

from musictag.engines import mlflow_registry
from musictag.features.clips import clip_weights
from musictag.features.config import FeatureConfig
from musictag.features.descriptors import describe
from musictag.features.table import decode_clips
from musictag.models.artifact import load_model
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS
from musictag.tagging.tagger import Tagger
from musictag.training import baselines
from sample_tables import find_files

CONFIG = FeatureConfig()


def where(corpus):
    return "--catalog", corpus.catalog, "--features", corpus.features


def test_best_method_becomes_the_candidate_that_evaluates_and_tags(own_home, corpus, call):
    options = "--methods", "linear-svm,ml-knn", "--min-precision", "tone=0.9", "--seed", 3
    code, out, _ = call(own_home, "baseline", *where(corpus), *options)
    assert code == 0
    pr_auc = dict(re.findall(r"^([\w-]+) \(.*validation macro PR-AUC ([\d.]+)", out, re.MULTILINE))
    assert pr_auc.keys() == {"linear-svm", "ml-knn"}
    best = max(pr_auc, key=lambda method: float(pr_auc[method]))
    last = out.splitlines()[-1]
    n_tracks = sum(len(corpus.labels.tags[split]) for split in ("train", "validation"))
    assert last.startswith(f"{n_tracks} tracks described in ")
    assert f"best {best} (macro PR-AUC {pr_auc[best]})" in last

    source = mlflow_registry.fetch("models:/musictag@candidate")
    model, spec = load_model(source.folder)
    assert (spec.architecture, spec.vocabulary) == (best, corpus.vocabulary)
    run = MlflowClient(own_home.tracking_uri).get_run(source.run_id)
    expected = {"model": best, "n_train": str(len(corpus.labels.tags["train"])), "seed": "3"}
    assert {name: run.data.params[name] for name in expected} == expected
    assert set(baselines.GRIDS[best]) <= run.data.params.keys()
    assert run.data.metrics["best_val_macro_pr_auc"] == pytest.approx(float(pr_auc[best]), abs=6e-4)
    assert {"best_val_loss", "best_val_macro_roc_auc", "fit_seconds"} <= run.data.metrics.keys()

    code, out, err = call(own_home, "evaluate", *where(corpus))
    assert (code, err) == (0, "")
    assert float(re.search(r"macro PR-AUC ([\d.]+)", out.splitlines()[-1])[1]) > 0.6

    tags = own_home.folder / "tags"
    code, out, err = call(own_home, "tag", "--model", "models:/musictag@candidate", "--features", corpus.features,
                          "--tags", tags)  # fmt: skip
    assert code == 0, err
    assert out.splitlines()[-1].startswith("50 listed = 50 written")
    columns = tables.read_columns(str(tags), ("track_id", "scores")).to_pylist()
    scores = {row["track_id"]: row["scores"] for row in columns}
    rows = list(tables.read_rows(str(corpus.features), SCORE_COLUMNS, scores))
    np.testing.assert_allclose(
        [scores[row["track_id"]] for row in rows], Tagger(model, spec).track_scores(rows), atol=1e-5
    )


def test_alias_is_given_to_each_method(own_home, corpus, call):
    options = "--methods", "linear-svm", "--alias", "old", "--vocabulary", "tone,noise"
    code, out, err = call(own_home, "baseline", *where(corpus), *options)
    assert code == 0, err
    assert "old-METHOD" in out.splitlines()[-1]
    _, spec = load_model(mlflow_registry.fetch("models:/musictag@old-linear-svm").folder)
    assert spec.vocabulary == ("noise", "tone")
    assert mlflow_registry.alias_version("candidate") is None


def test_each_track_is_described_by_its_clips(corpus, script):
    wanted = sorted(corpus.labels.tags["validation"])
    files = find_files(str(corpus.features), wanted)
    described = script("baseline").describe_tracks(str(corpus.features), files, CONFIG)
    assert sorted(described) == wanted
    for row in tables.read_rows(str(corpus.features), SCORE_COLUMNS, wanted):
        weights = clip_weights(row["start_s"], row["duration_s"], CONFIG)
        expected = describe(decode_clips(row["clips"], CONFIG), weights, CONFIG)
        np.testing.assert_allclose(described[row["track_id"]], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--methods", "svm"), "--methods has svm; there is linear-svm"),
        (("--vocabulary", "tones"), "'tones' (close: 'tone')"),
        (("--min-precision", "loud=0.9"), "the vocabulary has no tag 'loud'"),
    ],
)
def test_wrong_options_are_refused_before_the_work(own_home, corpus, call, options, complaint):
    code, _, err = call(own_home, "baseline", *where(corpus), *options)
    assert code == 2
    assert complaint in err
    assert "describe" not in err


def test_classical_model_cannot_be_fine_tuned(own_home, corpus, call):
    assert call(own_home, "baseline", *where(corpus), "--methods", "linear-svm")[0] == 0
    code, _, err = call(own_home, "train", *where(corpus), "--init", "models:/musictag@candidate")
    assert code == 2
    assert "is a linear-svm: it has no network" in err
