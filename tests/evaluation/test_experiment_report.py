import dataclasses
import math
import re

import numpy as np
import pytest

from musictag.evaluation import comparison, experiment_report, results
from musictag.evaluation.experiment_report import CLASSICAL, NETWORK, Entry
from musictag.evaluation.report import UNDEFINED


@pytest.fixture
def entries(evaluate):
    """Three models of the same tracks: one that is nearly always right, one that hears something, one that guesses."""
    truth = evaluate(3)
    rng = np.random.default_rng(1)
    shape = truth.targets.shape

    def scored(noise):
        scores = np.clip((1 - noise) * (0.1 + 0.8 * truth.targets) + noise * rng.random(shape), 0, 1)
        scores = scores.astype(np.float32)
        return dataclasses.replace(truth, scores=scores, raw_scores=scores**2)

    return [
        Entry(name="deep", kind=NETWORK, evaluation=scored(0.1), validation_pr_auc=0.9, minutes=12.34),
        Entry(name="shallow", kind=CLASSICAL, evaluation=scored(0.7), validation_pr_auc=0.6, minutes=0.5),
        Entry(name="guess", kind=CLASSICAL, evaluation=scored(1.0), validation_pr_auc=0.3, minutes=0.01),
    ]


def table(text, heading):
    """The cells of the table whose first heading this is, by the first cell of each line."""
    lines = text.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()
    return {cells[0]: cells[1:] for line in lines[2:] for cells in [[cell.strip() for cell in line.split("|")[1:-1]]]}


def test_best_of_a_kind_is_chosen_on_validation_tracks(entries):
    assert experiment_report.best(entries, NETWORK).name == "deep"
    for worse in (0.1, math.nan):
        swapped = [dataclasses.replace(entries[1], validation_pr_auc=worse), entries[2]]
        assert experiment_report.best(swapped, CLASSICAL).name == "guess"


def test_models_are_listed_best_first(entries):
    models = table(experiment_report.page("Title", "About.", entries[::-1], "chart.png"), "model")
    assert list(models) == ["deep", "shallow", "guess"]
    values = results.summary(entries[0].evaluation)
    kind, precision, recall, *areas, error, validation, minutes = models["deep"]
    assert (kind, validation, minutes) == ("network", "0.900", "12.3")
    assert [precision, recall] == [f"{values[f'macro_{name}']:.3f}" for name in ("precision", "recall")]
    for name, shown in zip(("macro_f1", "macro_pr_auc", "macro_roc_auc"), areas, strict=True):
        assert shown == f"{values[name]:.3f} ({values[f'{name}_low']:.3f} to {values[f'{name}_high']:.3f})"
    assert error == f"{values['micro_ece_raw']:.3f} → {values['micro_ece']:.3f}"


def test_tags_are_compared_with_paired_intervals(entries):
    tags = table(experiment_report.page("Title", "About.", entries, "chart.png"), "tag")
    deep, shallow = entries[0].evaluation, entries[1].evaluation
    f1 = {row["tag"]: row for row in comparison.compare(deep, shallow).to_pylist() if row["figure"] == "f1"}
    of_deep = {row["tag"]: row for row in results.per_tag(deep).to_pylist()}
    assert list(tags) == [*(f"`{tag}`" for tag in deep.vocabulary), "*macro*"]
    for tag in deep.vocabulary:
        cells = tags[f"`{tag}`"]
        assert cells[0] == str(of_deep[tag]["support"])
        assert cells[3] == f"{of_deep[tag]['f1']:.3f}"
        shown = f"{f1[tag]['difference']:+.3f} ({f1[tag]['low']:+.3f} to {f1[tag]['high']:+.3f})"
        assert cells[7] == (f"**{shown}**" if f1[tag]["clear"] else shown)


def test_clear_differences_are_bold(entries):
    models = table(experiment_report.page("Title", "About.", entries, "chart.png"), "against shallow")
    assert set(models) == {"deep", "guess"}
    assert all(re.fullmatch(r"\*\*\+.*\*\*", cell) for cell in models["deep"])
    assert models["guess"][2].removeprefix("**").startswith("-")


def test_verdict_counts_tags_and_names_the_error_of_chance(entries):
    verdict = experiment_report.verdict(entries[0], entries[1])
    assert (
        "F1 is higher in 3 of 3 tags, with an interval above 0 in 3 (tag 00, tag 01, tag 02); "
        "it is lower with an interval below 0 in 0." in verdict
    )
    other_way = experiment_report.verdict(entries[1], entries[0])
    assert (
        "F1 is higher in 0 of 3 tags, with an interval above 0 in 0; "
        "it is lower with an interval below 0 in 3 (tag 00, tag" in other_way
    )
    assert f"Macro ROC-AUC of deep: {results.summary(entries[0].evaluation)['macro_roc_auc']:.3f}." in verdict
    chance = float(re.search(r"would have (\d\.\d+) by chance on so few tracks", verdict)[1])
    assert 0.02 < chance < 0.2


def test_tag_known_to_one_model_has_dashes(entries):
    deep, shallow = entries[0], entries[1]
    other = dataclasses.replace(shallow.evaluation, vocabulary=("tag 00", "tag 01", "tag|x"))
    text = experiment_report.page(
        "Title", "About.", [deep, dataclasses.replace(shallow, evaluation=other)], "chart.png"
    )
    line = next(line for line in text.splitlines() if line.startswith(r"| `tag\|x` |"))
    assert [cell.strip() for cell in line.split("|")[4:7]] == [UNDEFINED] * 3
    assert " | ".join([UNDEFINED] * 4) in next(line for line in text.splitlines() if line.startswith("| `tag 02` |"))


def test_page_without_intervals_has_no_bold_text(entries):
    alone = [
        dataclasses.replace(each, evaluation=dataclasses.replace(each.evaluation, groups=("artist:x",) * 40))
        for each in entries
    ]
    text = experiment_report.page("Title", "About.", alone, "chart.png")
    assert "**" not in text.split("## What it shows")[0].replace(experiment_report.ABOUT_DIFFERENCES, "")
    assert "nan" not in text


def test_page_names_its_chart_and_sections(entries):
    text = experiment_report.page("The title", "What was run.", entries, "some.png")
    assert text.startswith("# The title\n\nWhat was run.\n\n## All models\n")
    assert "](some.png)" in text
    assert text.endswith(experiment_report.verdict(entries[0], entries[1]) + "\n")
