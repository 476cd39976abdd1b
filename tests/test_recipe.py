import argparse
import dataclasses

import pytest

from musictag.errors import UsageError
from musictag.recipe import FOLDS, add_options, n_folds, precisions, training_config
from musictag.training import TrainingConfig
from musictag.transfer import FINE_TUNING


def config(*argv, fine_tuning=False):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return training_config(parser.parse_args(list(argv)), fine_tuning=fine_tuning)


def test_without_options_the_recipe_is_as_it_is():
    assert config() == TrainingConfig()
    assert config(fine_tuning=True) == FINE_TUNING


def test_every_option_changes_its_field_of_either_recipe():
    argv = ("--epochs", "5", "--head-epochs", "1", "--patience", "3", "--batch-size", "8", "--clips-per-epoch", "2",
            "--learning-rate", "0.02", "--body-rate", "0", "--seed", "9")  # fmt: skip
    given = {"epochs": 5, "head_epochs": 1, "patience": 3, "batch_size": 8, "clips_per_track": 2,
             "learning_rate": 0.02, "body_rate": 0.0, "seed": 9}  # fmt: skip
    assert config(*argv) == dataclasses.replace(TrainingConfig(), **given)
    assert config(*argv, fine_tuning=True) == dataclasses.replace(FINE_TUNING, **given)


def test_an_option_that_says_the_plain_default_is_kept_in_fine_tuning():
    assert config("--epochs", str(TrainingConfig().epochs), fine_tuning=True).epochs == TrainingConfig().epochs


def test_the_help_tells_both_defaults():
    parser = argparse.ArgumentParser()
    add_options(parser)
    text = " ".join(parser.format_help().split())
    assert f"(default: {TrainingConfig().epochs}, with --init {FINE_TUNING.epochs})" in text
    assert f"clips of a step on each worker (default: {TrainingConfig().batch_size})" in text


def test_a_wrong_number_is_named():
    with pytest.raises(UsageError, match=r"TrainingConfig\.body_rate is -1\.0"):
        config("--body-rate", "-1", fine_tuning=True)


def folds(*argv, fine_tuning):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return n_folds(parser.parse_args(list(argv)), fine_tuning=fine_tuning)


def test_folds_are_for_fine_tuning():
    assert folds(fine_tuning=True) == FOLDS > 1
    assert folds(fine_tuning=False) == 1
    assert folds("--folds", "3", fine_tuning=True) == 3
    assert folds("--folds", "1", fine_tuning=False) == 1


@pytest.mark.parametrize(
    ("given", "fine_tuning", "complaint"), [("0", True, "--folds is 0"), ("2", False, "--folds goes with --init")]
)
def test_folds_that_make_no_sense_are_refused(given, fine_tuning, complaint):
    with pytest.raises(UsageError, match=complaint):
        folds("--folds", given, fine_tuning=fine_tuning)


def test_a_precision_is_asked_of_some_tags():
    assert precisions("calm=0.9,a=b=1") == {"calm": 0.9, "a=b": 1.0}
    for text in ("", "calm", "=0.5", "calm=high", "calm=0", "calm=1.5", "calm=0.5,", "calm=nan"):
        with pytest.raises(UsageError, match=r"--min-precision has .*: it takes TAG=SHARE"):
            precisions(text)
