import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from matplotlib.image import imread
from mlflow import MlflowClient

from musictag.engines import mlflow_registry, mlflow_runs


def run_of(version):
    return mlflow_registry.fetch(f"models:/musictag/{version}").run_id


def champion():
    return mlflow_registry.alias_version("champion")


def one_error(err):
    lines = [line for line in err.splitlines() if line.strip()]
    return "Traceback" not in err and len(lines) == 1 and lines[0].startswith("error: ")


def test_the_first_model_is_promoted_exactly_once(own_home, call, artifacts, evaluated):
    evaluated(artifacts["fresh"])
    code, out, err = call(own_home, "promote")
    assert (code, err, champion()) == (0, "", "1")
    assert "version 1 is the champion: promoted: there is no champion yet" in out
    code, out, err = call(own_home, "promote")
    assert (code, out, err) == (0, "version 1 is the champion already\n", "")


def test_a_better_model_is_promoted(own_home, call, artifacts, evaluated):
    for folder in ("fresh", "trained"):
        evaluated(artifacts[folder])
        code, out, _ = call(own_home, "promote")
        assert code == 0
    assert champion() == "2"
    assert "is above the champion's" in out
    tags = MlflowClient(own_home.tracking_uri).get_model_version("musictag", "2").tags
    assert tags["decision"].startswith("promoted: macro PR-AUC")
    assert tags["replaced"] == "1"


def decision_of(own_home, version, folder):
    """The files that promote.py kept with a version's run, and the metrics."""
    client = MlflowClient(own_home.tracking_uri)
    files = Path(client.download_artifacts(run_of(version), "promotion", str(folder)))
    logged = client.get_run(run_of(version)).data.metrics
    return files, {name: value for name, value in logged.items() if name.startswith("promotion_")}


def test_decision_figures_and_chart_are_kept_with_the_run(own_home, call, artifacts, tmp_path, evaluated):
    for folder in ("trained", "fresh"):
        evaluated(artifacts[folder])
        call(own_home, "promote")
    first, figures = decision_of(own_home, "1", tmp_path)
    assert [path.name for path in first.iterdir()] == ["decision.json"]
    assert figures == {"promotion_promote": 1}
    assert json.loads((first / "decision.json").read_text())["reason"].startswith("promoted: there is no champion yet")
    second, figures = decision_of(own_home, "2", tmp_path)
    assert {path.name for path in second.iterdir()} == {"decision.json", "comparison.png"}
    assert imread(second / "comparison.png").std() > 0
    kept = json.loads((second / "decision.json").read_text())
    assert (kept["promote"], figures["promotion_promote"]) == (False, 0)
    assert kept["reason"] == MlflowClient(own_home.tracking_uri).get_model_version("musictag", "2").tags["decision"]
    assert [rule["name"] for rule in kept["rules"]] == ["vocabulary", "macro_pr_auc", "tags", "calibration"]
    assert figures["promotion_macro_pr_auc_difference"] == kept["rules"][1]["figures"]["difference"] < 0


def test_a_model_of_another_vocabulary_is_refused_unless_forced(own_home, call, artifacts, tmp_path, evaluated):
    evaluated(artifacts["fresh"])
    assert call(own_home, "promote")[0] == 0
    folder = Path(shutil.copytree(artifacts["trained"], tmp_path / "renamed"))
    described = (folder / "tagger.json").read_text()
    (folder / "tagger.json").write_text(described.replace('"clicks"', '"bells"'))
    evaluated(folder)
    code, _, err = call(own_home, "promote")
    assert (code, champion()) == (1, "1")
    assert "1 tags only the candidate has (bells), 1 tags only the champion has (clicks)" in err
    assert one_error(err)
    assert decision_of(own_home, "2", tmp_path)[1]["promotion_promote"] == 0
    assert call(own_home, "promote", "--force", "--reason", "bells are better")[0] == 0
    assert champion() == "2"
    (tmp_path / "forced").mkdir()
    files, _ = decision_of(own_home, "2", tmp_path / "forced")
    kept = json.loads((files / "decision.json").read_text())
    assert kept["reason"].startswith("forced: bells are better; by the figures not promoted: the two models cannot be")
    assert [(rule["name"], rule["passed"]) for rule in kept["rules"]] == [("vocabulary", False)]


def test_an_evaluation_without_the_needed_columns_is_refused_by_name(own_home, call, artifacts, tmp_path, evaluated):
    evaluated(artifacts["trained"])
    found = mlflow_runs.evaluation_file(run_of("1"), "test", "scores.parquet")
    (tmp_path / "old").mkdir()
    pq.write_table(pq.read_table(found).drop_columns(["group", "raw_scores"]), tmp_path / "old/scores.parquet")
    mlflow_runs.log_evaluation(run_of("1"), "test", tmp_path / "old", {})
    code, _, err = call(own_home, "promote")
    assert (code, champion()) == (1, None)
    assert "the evaluation of models:/musictag/1: the table has no column group, raw_scores" in err
    assert one_error(err)


def test_each_rollback_returns_to_the_previous_champion(own_home, call, artifacts, add_model):
    for _ in range(3):
        add_model(artifacts["fresh"])
        assert call(own_home, "promote", "--force", "--reason", "a try")[0] == 0
    assert champion() == "3"
    code, out, err = call(own_home, "promote", "--rollback", "--reason", "too many polkas")
    assert (code, err, champion()) == (0, "", "2")
    assert out == "version 2 is the champion again, instead of version 3: too many polkas\n"
    tags = MlflowClient(own_home.tracking_uri).get_model_version("musictag", "3").tags
    assert tags["decision"] == "rolled back to version 2: too many polkas"
    code, out, _ = call(own_home, "promote", "--rollback")
    assert (code, out, champion()) == (0, "version 1 is the champion again, instead of version 2\n", "1")
    code, out, err = call(own_home, "promote", "--rollback")
    assert (code, out, champion()) == (1, "", "1")
    assert "version 1 is the first champion: there is none before it to roll back to" in err
    assert one_error(err)


@pytest.mark.parametrize("options", [("--model", "models:/musictag/1"), ("--force", "--reason", "so")])
def test_rollback_cannot_be_combined_with_a_chosen_model(own_home, call, options):
    code, _, err = call(own_home, "promote", "--rollback", *options)
    assert code == 2
    assert "--rollback cannot be combined with --model or --force" in err
    assert one_error(err)


@pytest.mark.parametrize(("folder", "relation"), [("trained", "equal to"), ("fresh", "below")])
def test_a_model_that_is_not_better_is_refused_with_the_reason(own_home, call, artifacts, folder, relation, evaluated):
    evaluated(artifacts["trained"])
    assert call(own_home, "promote")[0] == 0
    evaluated(artifacts[folder])
    code, out, err = call(own_home, "promote")
    assert (code, out, champion()) == (1, "", "1")
    assert re.search(rf"version 2 was not promoted: macro PR-AUC [\d.]+ is {relation} the champion's [\d.]+", err)
    assert one_error(err)
    tags = MlflowClient(own_home.tracking_uri).get_model_version("musictag", "2").tags
    assert tags["decision"].startswith("not promoted")


def test_force_needs_a_reason(own_home, call, artifacts, evaluated):
    evaluated(artifacts["trained"])
    for reason in ((), ("--reason", " ")):
        code, _, err = call(own_home, "promote", "--force", *reason)
        assert (code, champion()) == (2, None)
        assert "--force needs --reason TEXT" in err
        assert one_error(err)


def test_a_forced_promotion_keeps_decision_figures_and_chart(own_home, call, artifacts, tmp_path, evaluated):
    evaluated(artifacts["trained"])
    assert call(own_home, "promote", "--force", "--reason", "the first")[0] == 0
    evaluated(artifacts["fresh"])
    code, out, _ = call(own_home, "promote", "--force", "--reason", "agreed with the editors")
    assert (code, champion()) == (0, "2")
    reason = "forced: agreed with the editors; by the figures not promoted: macro PR-AUC "
    assert f"version 2 is the champion: {reason}" in out
    first, figures = decision_of(own_home, "1", tmp_path)
    assert [path.name for path in first.iterdir()] == ["decision.json"]
    kept = json.loads((first / "decision.json").read_text())
    assert kept["reason"].startswith("forced: the first; by the figures promoted: there is no champion yet")
    second, figures = decision_of(own_home, "2", tmp_path)
    assert {path.name for path in second.iterdir()} == {"decision.json", "comparison.png"}
    kept = json.loads((second / "decision.json").read_text())
    assert (kept["promote"], kept["forced"], figures["promotion_promote"]) == (True, True, 1)
    assert next(rule["name"] for rule in kept["rules"] if not rule["passed"]) == "macro_pr_auc"
    assert figures["promotion_macro_pr_auc_difference"] == kept["rules"][1]["figures"]["difference"] < 0
    tags = MlflowClient(own_home.tracking_uri).get_model_version("musictag", "2").tags
    assert (tags["decision"], tags["replaced"]) == (kept["reason"], "1")
    assert kept["reason"].startswith(reason)


def test_forcing_a_model_without_evaluation_says_that_nothing_was_compared(
    own_home, call, artifacts, tmp_path, add_model, evaluated
):
    evaluated(artifacts["trained"])
    assert call(own_home, "promote")[0] == 0
    add_model(artifacts["fresh"])
    code, out, _ = call(own_home, "promote", "--force", "--reason", "agreed with the editors")
    assert (code, champion()) == (0, "2")
    reason = "forced: agreed with the editors; nothing was compared: models:/musictag/2 has no evaluation"
    assert f"version 2 is the champion: {reason}" in out
    files, figures = decision_of(own_home, "2", tmp_path)
    kept = json.loads((files / "decision.json").read_text())
    assert (kept["promote"], kept["forced"], kept["rules"], kept["comparison"]) == (True, True, [], None)
    assert kept["reason"].startswith(reason)
    assert figures == {"promotion_promote": 1}
    tags = MlflowClient(own_home.tracking_uri).get_model_version("musictag", "2").tags
    assert (tags["decision"], tags["replaced"]) == (kept["reason"], "1")


def test_promoting_a_model_without_evaluation_names_the_command_to_run(own_home, call, artifacts, add_model):
    add_model(artifacts["trained"])
    code, _, err = call(own_home, "promote")
    assert (code, champion()) == (1, None)
    assert "run `python pipelines/evaluate.py --model models:/musictag/1`" in err
    assert one_error(err)
