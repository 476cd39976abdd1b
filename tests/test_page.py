import dataclasses
import re

import numpy as np
import pytest

from musictag import comparison, evaluation, page
from musictag.page import CLASSICAL, NETWORK, Entry


@pytest.fixture
def entries(evaluate):
    """Three models of the same tracks: one that is nearly always right, one that hears something, one that guesses."""
    truth = evaluate(3)
    rng = np.random.default_rng(1)
    shape = truth.targets.shape

    def scored(noise):
        scores = np.clip((1 - noise) * (0.1 + 0.8 * truth.targets) + noise * rng.random(shape), 0, 1)
        return dataclasses.replace(truth, scores=scores.astype(np.float32), raw_scores=scores.astype(np.float32))

    return [
        Entry(name="deep", kind=NETWORK, evaluation=scored(0.1), validation_pr_auc=0.9, minutes=12.34),
        Entry(name="shallow", kind=CLASSICAL, evaluation=scored(0.7), validation_pr_auc=0.6, minutes=0.5),
        Entry(name="guess", kind=CLASSICAL, evaluation=scored(1.0), validation_pr_auc=0.3, minutes=0.01),
    ]


def table(text, heading):
    """The cells of the table whose first heading this is, by the first cell of each line."""
    lines = text.split(f"\n| {heading} |")[1].split("\n\n")[0].splitlines()
    return {cells[0]: cells[1:] for line in lines[2:] for cells in [[cell.strip() for cell in line.split("|")[1:-1]]]}


def test_the_best_of_a_kind_is_chosen_on_validation_tracks(entries):
    assert page.best(entries, NETWORK).name == "deep"
    swapped = [dataclasses.replace(entries[1], validation_pr_auc=0.1), entries[2]]
    assert page.best(swapped, CLASSICAL).name == "guess"


def test_every_model_has_its_figures_best_first(entries):
    models = table(page.page("Title", "About.", entries[::-1], "chart.png"), "model")
    assert list(models) == ["deep", "shallow", "guess"]
    values = evaluation.summary(entries[0].evaluation)
    kind, precision, recall, f1, _, roc_auc, error, validation, minutes = models["deep"]
    assert (kind, validation, minutes) == ("network", "0.900", "12.3")
    assert [precision, recall, roc_auc] == [f"{values[f'macro_{n}']:.3f}" for n in ("precision", "recall", "roc_auc")]
    assert f1 == f"{values['macro_f1']:.3f} ({values['macro_f1_low']:.3f} to {values['macro_f1_high']:.3f})"
    assert error == f"{values['micro_ece_raw']:.3f} → {values['micro_ece']:.3f}"


def test_tags_are_compared_with_paired_intervals(entries):
    tags = table(page.page("Title", "About.", entries, "chart.png"), "tag")
    deep, shallow = entries[0].evaluation, entries[1].evaluation
    f1 = {row["tag"]: row for row in comparison.compare(deep, shallow).to_pylist() if row["figure"] == "f1"}
    of_deep = {row["tag"]: row for row in evaluation.per_tag(deep).to_pylist()}
    assert list(tags) == [*(f"`{tag}`" for tag in deep.vocabulary), "*macro*"]
    for tag in deep.vocabulary:
        cells = tags[f"`{tag}`"]
        assert cells[0] == str(of_deep[tag]["support"])
        assert cells[3] == f"{of_deep[tag]['f1']:.3f}"
        shown = f"{f1[tag]['difference']:+.3f} ({f1[tag]['low']:+.3f} to {f1[tag]['high']:+.3f})"
        assert cells[7] == (f"**{shown}**" if f1[tag]["clear"] else shown)


def test_differences_that_are_clear_of_0_are_bold(entries):
    models = table(page.page("Title", "About.", entries, "chart.png"), "against shallow")
    assert set(models) == {"deep", "guess"}
    assert all(re.fullmatch(r"\*\*\+.*\*\*", cell) for cell in models["deep"])
    assert models["guess"][2].removeprefix("**").startswith("-")


def test_the_verdict_counts_tags_and_tells_chance_from_error(entries):
    verdict = page.verdict(entries[0], entries[1])
    assert "F1 is higher in 3 of 3 tags" in verdict
    assert f"Macro ROC-AUC of deep: {evaluation.summary(entries[0].evaluation)['macro_roc_auc']:.3f}." in verdict
    chance = float(re.search(r"would have (\d\.\d+) on so few tracks", verdict)[1])
    assert 0.02 < chance < 0.2


def test_a_page_without_intervals_has_dashes_and_no_bold(entries):
    alone = [
        dataclasses.replace(each, evaluation=dataclasses.replace(each.evaluation, groups=("artist:x",) * 40))
        for each in entries
    ]
    text = page.page("Title", "About.", alone, "chart.png")
    assert "**" not in text.split("## What it shows")[0].replace(page.ABOUT_DIFFERENCES, "")
    assert "nan" not in text


def test_the_page_names_its_chart_and_its_parts(entries):
    text = page.page("The title", "What was run.", entries, "some.png")
    assert text.startswith("# The title\n\nWhat was run.\n\n## All models\n")
    assert "](some.png)" in text
    assert text.endswith(page.verdict(entries[0], entries[1]) + "\n")
