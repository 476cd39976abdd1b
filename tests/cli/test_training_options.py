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


def test_recipe_is_unchanged_without_options():
    assert config() == FROM_SCRATCH
    assert config(fine_tuning=True) == FINE_TUNING


def test_every_option_changes_its_field_in_both_recipes():
    argv = ("--epochs", "5", "--head-epochs", "1", "--patience", "3", "--batch-size", "8", "--clips-per-epoch", "2",
            "--learning-rate", "0.02", "--body-rate", "0", "--seed", "9")  # fmt: skip
    given = {"epochs": 5, "head_epochs": 1, "patience": 3, "batch_size": 8, "clips_per_track": 2,
             "learning_rate": 0.02, "body_rate": 0.0, "seed": 9}  # fmt: skip
    assert config(*argv) == dataclasses.replace(FROM_SCRATCH, **given)
    assert config(*argv, fine_tuning=True) == dataclasses.replace(FINE_TUNING, **given)


def test_given_value_is_kept_in_fine_tuning():
    assert config("--epochs", str(FROM_SCRATCH.epochs), fine_tuning=True).epochs == FROM_SCRATCH.epochs


def test_help_names_both_defaults():
    parser = argparse.ArgumentParser()
    add_options(parser)
    text = " ".join(parser.format_help().split())
    assert f"(default: {FROM_SCRATCH.epochs}, with --init {FINE_TUNING.epochs})" in text
    assert (
        "clips per step of all workers together, a multiple of --num-workers "
        f"(default: {FROM_SCRATCH.batch_size}, with --init {FINE_TUNING.batch_size})" in text
    )


def folds(*argv, fine_tuning):
    return n_folds(parsed(*argv), fine_tuning=fine_tuning)


def test_folds_are_for_fine_tuning():
    assert folds(fine_tuning=True) == FOLDS > 1
    assert folds(fine_tuning=False) == 1
    assert folds("--folds", "3", fine_tuning=True) == 3
    assert folds("--folds", "1", fine_tuning=False) == 1


def test_folds_without_init_are_refused():
    with pytest.raises(UsageError, match="--folds needs --init"):
        folds("--folds", "2", fine_tuning=False)


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [(("--folds", "0"), "a whole number of at least 1"), (("--epochs", "2.5"), "a whole number of at least 1"),
     (("--clips-per-epoch", "0"), "a whole number of at least 1"), (("--body-rate", "-1"), "a number of at least 0"),
     (("--learning-rate", "inf"), "a number above 0"), (("--learning-rate", "0"), "a number above 0")],
    ids=str,
)  # fmt: skip
def test_wrong_number_is_refused_with_the_allowed_ones(argv, allowed, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed(*argv)
    assert f"argument {argv[0]}: {argv[1]!r} is not {allowed}\n" in capsys.readouterr().err


def test_precisions_are_parsed_by_tag():
    assert precisions("calm=0.9,a=b=1") == {"calm": 0.9, "a=b": 1.0}
    for text in ("", "calm", "=0.5", "calm=high", "calm=0", "calm=1.5", "calm=0.5,", "calm=nan"):
        with pytest.raises(UsageError, match=r"--min-precision has .*: it takes TAG=SHARE"):
            precisions(text)


def test_network_is_trained_from_scratch_by_default():
    args = parsed()
    check_options(args)
    assert (args.model, args.model_params, args.init, args.vocabulary) == (None, {}, (), None)
    assert DEFAULT_MODEL in SINGLE


def test_options_choose_the_network():
    args = parsed("--model", "three-path", "--model-params", '{"channels": [8, 16], "dropout": 0.5}')
    check_options(args)
    assert (args.model, args.model_params) == ("three-path", {"channels": [8, 16], "dropout": 0.5})
    args = parsed("--init", "msd-musicnn,folder/model", "--vocabulary", "slow,80s pop")
    check_options(args)
    assert (args.init, args.vocabulary) == (["msd-musicnn", "folder/model"], ["slow", "80s pop"])


@pytest.mark.parametrize("name", ["crnn", "ensemble"])
def test_unknown_network_is_refused_with_the_known_ones(name, capsys):
    with pytest.raises(SystemExit, match="2"):
        parsed("--model", name)
    known = capsys.readouterr().err.rpartition("choose from")[2]
    assert all(name in known for name in SINGLE)
    assert "ensemble" not in known


@pytest.mark.parametrize("text", ["", "{", "channels=8", '{"channels": }'])
def test_params_that_are_not_json_are_refused(text):
    with pytest.raises(UsageError, match=r"--model-params is '.*', which is not JSON: "):
        parsed("--model-params", text)


@pytest.mark.parametrize("text", ["[8, 16]", "3", "null", '"channels"'])
def test_params_that_are_no_object_are_refused(text):
    with pytest.raises(UsageError, match=r"--model-params is '.*': it must be a JSON object"):
        parsed("--model-params", text)


@pytest.mark.parametrize("network", [("--model", DEFAULT_MODEL), ("--model-params", '{"hidden": 64}')], ids=str)
def test_model_options_contradict_init(network):
    with pytest.raises(UsageError, match="--model and --model-params cannot be combined with --init"):
        check_options(parsed("--init", "msd-musicnn", *network))
