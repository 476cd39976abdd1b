import argparse
import dataclasses

import pytest

from musictag.cli.training_options import add_options, check_options, n_folds, precisions, training_config
from musictag.errors import UsageError
from musictag.models.architectures import SINGLE
from musictag.training.recipes import DEFAULT_MODEL, FINE_TUNING, FOLDS, FROM_SCRATCH


def parsed(*argv):
    parser = argparse.ArgumentParser()
    add_options(parser)
    return parser.parse_args(list(argv))


def config(*argv, fine_tuning=False):
    return training_config(parsed(*argv), fine_tuning=fine_tuning)


def test_without_options_the_recipe_is_as_it_is():
    assert config() == FROM_SCRATCH
    assert config(fine_tuning=True) == FINE_TUNING


def test_every_option_changes_its_field_of_either_recipe():
    argv = ("--epochs", "5", "--head-epochs", "1", "--patience", "3", "--batch-size", "8", "--clips-per-epoch", "2",
            "--learning-rate", "0.02", "--body-rate", "0", "--seed", "9")  # fmt: skip
    given = {"epochs": 5, "head_epochs": 1, "patience": 3, "batch_size": 8, "clips_per_track": 2,
             "learning_rate": 0.02, "body_rate": 0.0, "seed": 9}  # fmt: skip
    assert config(*argv) == dataclasses.replace(FROM_SCRATCH, **given)
    assert config(*argv, fine_tuning=True) == dataclasses.replace(FINE_TUNING, **given)


def test_an_option_that_says_the_plain_default_is_kept_in_fine_tuning():
    assert config("--epochs", str(FROM_SCRATCH.epochs), fine_tuning=True).epochs == FROM_SCRATCH.epochs


def test_the_help_tells_both_defaults():
    parser = argparse.ArgumentParser()
    add_options(parser)
    text = " ".join(parser.format_help().split())
    assert f"(default: {FROM_SCRATCH.epochs}, with --init {FINE_TUNING.epochs})" in text
    assert (
        f"clips of a step on each worker (default: {FROM_SCRATCH.batch_size}, with --init {FINE_TUNING.batch_size})"
        in text
    )


def test_a_wrong_number_is_named():
    with pytest.raises(UsageError, match=r"TrainingConfig\.body_rate is -1\.0"):
        config("--body-rate", "-1", fine_tuning=True)


def folds(*argv, fine_tuning):
    return n_folds(parsed(*argv), fine_tuning=fine_tuning)


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


def test_without_options_the_network_starts_from_nothing_and_learns_all_tags():
    args = parsed()
    check_options(args)
    assert (args.model, args.model_params, args.init, args.vocabulary) == (None, {}, (), None)
    assert DEFAULT_MODEL in SINGLE


def test_what_to_train_is_chosen_by_options():
    args = parsed("--model", "three-path", "--model-params", '{"channels": [8, 16], "dropout": 0.5}')
    check_options(args)
    assert (args.model, args.model_params) == ("three-path", {"channels": [8, 16], "dropout": 0.5})
    args = parsed("--init", "msd-musicnn,folder/model", "--vocabulary", "slow,80s pop")
    check_options(args)
    assert (args.init, args.vocabulary) == (["msd-musicnn", "folder/model"], ["slow", "80s pop"])


@pytest.mark.parametrize("name", ["crnn", "ensemble"])
def test_a_network_that_cannot_be_trained_from_nothing_is_answered_with_those_that_can(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("--model", name)
    known = capsys.readouterr().err.rpartition("choose from")[2]
    assert all(name in known for name in SINGLE)
    assert "ensemble" not in known


@pytest.mark.parametrize("text", ["", "{", "channels=8", '{"channels": }'])
def test_parameters_that_are_not_json_are_refused(text):
    with pytest.raises(UsageError, match=r"--model-params is '.*', which is not JSON: "):
        parsed("--model-params", text)


@pytest.mark.parametrize("text", ["[8, 16]", "3", "null", '"channels"'])
def test_parameters_without_names_are_refused(text):
    with pytest.raises(UsageError, match=r"--model-params is '.*': it takes values by name, in braces"):
        parsed("--model-params", text)


@pytest.mark.parametrize("network", [("--model", DEFAULT_MODEL), ("--model-params", '{"hidden": 64}')], ids=str)
def test_a_network_of_its_own_and_models_to_start_from_contradict_each_other(network):
    with pytest.raises(UsageError, match="--model and --model-params do not go with --init"):
        check_options(parsed("--init", "msd-musicnn", *network))
