import dataclasses
import json
import shutil

import torch
from mlflow import MlflowClient

from musictag.evaluation import metrics
from musictag.features.config import FeatureConfig
from musictag.models.artifact import load_model
from musictag.models.published import conversion, pretrained
from musictag.storage import tables
from musictag.tagging.scorers import SCORE_COLUMNS, score_labelled
from musictag.training import batches
from musictag.training.finetune import network_from
from musictag.training.loop import fit
from musictag.training.recipes import FINE_TUNING


def where(corpus):
    return "--catalog", corpus.catalog, "--features", corpus.features


def one_error(err):
    lines = [line for line in err.splitlines() if line.strip()]
    return "Traceback" not in err and len(lines) == 1 and lines[0].startswith("error: ")


def is_changed(model, published):
    """Return whether the body differs from the published one."""
    weights = model.state_dict()
    before = load_model(pretrained.find(published))[0].state_dict()
    return not all(torch.equal(weight, weights[name]) for name, weight in before.items() if "head" not in name)


def test_published_model_is_fine_tuned(home, call, corpus, tmp_path):
    options = ("--epochs", 1, "--head-epochs", 1, "--clips-per-epoch", 1, "--batch-size", 8, "--folds", 2,
               "--min-precision", "tone=0.9")  # fmt: skip
    code, out, err = call(home, "train", *where(corpus), "--init", "msd-musicnn", *options)
    assert code == 0, err
    assert "2 epochs, best 1, 1 (" in out
    client = MlflowClient(home.tracking_uri)
    run = client.get_run(client.get_model_version_by_alias("musictag", "candidate").run_id)
    expected = {"init": "msd-musicnn", "model": "musicnn", "head_epochs": "1", "frozen_norm": "True",
                "folds": "2", "min_precision": "{'tone': 0.9}",
                "learning_rate": str(FINE_TUNING.learning_rate)}  # fmt: skip
    assert {name: run.data.params[name] for name in expected} == expected
    assert f"is the candidate: runs:/{run.info.run_id}/model" in out
    folder = tmp_path / client.download_artifacts(run.info.run_id, "model", str(tmp_path))
    assert "Permission to use, copy, modify" in (folder / conversion.LICENSE_FILE).read_text()
    model, spec = load_model(folder)
    assert (spec.vocabulary, spec.provenance["init"]) == (corpus.vocabulary, "msd-musicnn")
    assert spec.params == load_model(pretrained.find("msd-musicnn"))[1].params
    assert not is_changed(model, "msd-musicnn")
    assert (model.head.weight != 0).any()


def test_two_published_models_are_fine_tuned_as_an_ensemble(corpus):
    sources = [load_model(pretrained.find(name)) for name in ("msd-musicnn", "mtt-musicnn")]
    config, targets = FeatureConfig(), {split: corpus.targets(split) for split in ("train", "validation")}

    def rows(split):
        return batches.labelled_rows(
            tables.read_rows(str(corpus.features), SCORE_COLUMNS, targets[split]), targets[split]
        )

    def validate(model):
        _, truth, scores = score_labelled(model, rows("validation"), config)
        return metrics.validation_metrics(truth, scores)

    training = dataclasses.replace(FINE_TUNING, epochs=2, head_epochs=1, clips_per_track=1, batch_size=8)
    model = network_from(sources, config, corpus.vocabulary, targets["train"].values()).build(training.seed)
    prior = validate(model)["val_loss"]
    changes = []
    state = fit(
        model,
        training,
        train_batches=lambda epoch: batches.train_batches(rows("train"), config, training, epoch=epoch),
        steps_per_epoch=batches.count_batches(len(targets["train"]), training),
        validate=validate,
        on_epoch=lambda _: changes.append([is_changed(model.members[0], "msd-musicnn"),
                                           is_changed(model.members[1], "mtt-musicnn")]),
    )  # fmt: skip
    assert changes == [[False, False], [True, True]]
    assert state.best_val_loss < 0.9 * prior


def test_unknown_published_model_is_refused_with_the_known_ones(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--init", "msd-musicnn,msd")
    assert code == 1
    assert "model msd: " in err
    assert ", ".join(pretrained.PUBLISHED) in err
    assert one_error(err)


def test_missing_model_version_is_named(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--init", "models:/musictag/999")
    assert code == 1
    assert "model models:/musictag/999: " in err
    assert one_error(err)


def test_model_of_other_features_is_refused(home, corpus, call, tmp_path):
    folder = shutil.copytree(pretrained.find("mtt-vgg"), tmp_path / "other")
    fields = json.loads((folder / "tagger.json").read_text())
    config = FeatureConfig(hop_length=200)
    fields.update(feature_config=config.to_dict(), feature_hash=config.feature_hash)
    (folder / "tagger.json").write_text(json.dumps(fields))
    code, _, err = call(home, "train", *where(corpus), "--init", folder)
    assert code == 1
    assert f"the features have hash {FeatureConfig().feature_hash}, the model needs {config.feature_hash}" in err
    assert one_error(err)


def test_model_and_init_options_are_exclusive(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--model", "cnn", "--init", "msd-musicnn")
    assert code == 2
    assert "--model and --model-params cannot be combined with --init" in err
    assert one_error(err)


def test_min_precision_of_an_unknown_tag_is_refused(home, corpus, call):
    code, _, err = call(home, "train", *where(corpus), "--min-precision", "tones=0.9")
    assert code == 2
    assert "the vocabulary has no tag 'tones' (close: 'tone')" in err
    assert one_error(err)
