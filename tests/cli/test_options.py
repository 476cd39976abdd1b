import argparse

import pytest

from musictag import errors
from musictag.cli import options
from musictag.engines import ray_cluster


@pytest.mark.parametrize(("text", "value"), [("all", None), ("1", 1), ("250", 250)])
def test_clips_per_track_is_a_number_or_all(text, value):
    assert options.clips_per_track(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "", "²"])
def test_other_clips_per_track_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a number from 1, nor 'all'"):
        options.clips_per_track(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.05", 0.05), ("1", 1.0)])
def test_a_rate_is_a_share(text, value):
    assert options.rate(text) == value


@pytest.mark.parametrize("text", ["-0.1", "1.1", "10%", "nan", ""])
def test_other_rates_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="not a share from 0 to 1"):
        options.rate(text)


def test_names_are_separated_by_commas():
    assert options.names("msd-musicnn") == ["msd-musicnn"]
    assert options.names("slow,80s pop,models:/musictag/3") == ["slow", "80s pop", "models:/musictag/3"]


@pytest.mark.parametrize(
    ("address", "n_gpus", "refused"), [(None, 1, True), (None, 2, False), ("10.0.0.1:6379", 0, False)]
)
def test_gpus_that_nobody_can_give_are_refused(monkeypatch, address, n_gpus, refused):
    parser = argparse.ArgumentParser()
    options.add_workers(parser, 1, "processes")
    args = parser.parse_args(["--num-workers", "2", "--use-gpu"])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
    if refused:
        with pytest.raises(errors.UsageError, match="2 workers need a GPU each, torch finds 1 here"):
            ray_cluster.check_gpus(args.num_workers, n_gpus)
    else:
        ray_cluster.check_gpus(args.num_workers, n_gpus)


@pytest.mark.parametrize("n_workers", ["0", "-1", "two"])
def test_a_number_of_workers_is_a_number_from_1(n_workers, capsys):
    parser = argparse.ArgumentParser()
    options.add_workers(parser, 1, "processes")
    with pytest.raises(SystemExit):
        parser.parse_args(["--num-workers", n_workers])
    assert "is not a number from 1" in capsys.readouterr().err
