import argparse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from musictag.cli import options
from musictag.features.limits import Limits


@pytest.mark.parametrize(("text", "value"), [("all", None), ("1", 1), ("250", 250)])
def test_clips_per_track_is_a_number_or_all(text, value):
    assert options.clips_per_track(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "ten", "", "²", "ALL", "1_000", " 5", "+3"])
def test_other_clips_per_track_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        options.clips_per_track(text)
    assert str(refused.value) == f"{text!r} is not a whole number of at least 1 or 'all'"


@pytest.mark.parametrize(("text", "value"), [("0", 0.0), ("0.05", 0.05), ("1", 1.0)])
def test_rate_is_a_number_from_0_to_1(text, value):
    assert options.rate(text) == value


@pytest.mark.parametrize("text", ["-0.1", "1.1", "10%", "nan", ""])
def test_other_rates_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        options.rate(text)
    assert str(refused.value) == f"{text!r} is not a number from 0 to 1"


@pytest.mark.parametrize("text", ["0", "-1", "inf", "nan", "two", "1e999"])
def test_hours_must_be_finite_and_above_0(text):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        options.hours(text)
    assert str(refused.value) == f"{text!r} is not a number above 0"
    assert options.hours("0.5") == 0.5


@pytest.mark.parametrize(
    ("parse", "text", "allowed"),
    [
        (options.number(int), "a", "a whole number"),
        (options.number(int), "1.0", "a whole number"),
        (options.number(int, maximum=3), "4", "a whole number of at most 3"),
        (options.number(int, minimum=2, maximum=3), "1", "a whole number from 2 to 3"),
        (options.number(float), "inf", "a number"),
        (options.number(float, above=0, maximum=1), "0", "a number above 0 and of at most 1"),
        (options.number(int, minimum=1, words={"all": None, "none": 0}), "0",
         "a whole number of at least 1 or 'all' or 'none'"),
    ],
)  # fmt: skip
def test_refusal_names_the_allowed_values(parse, text, allowed):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        parse(text)
    assert str(refused.value) == f"{text!r} is not {allowed}"


@given(
    value=st.integers(-(10**6), 10**6) | st.floats(allow_nan=False, allow_infinity=False),
    low=st.integers(-100, 100),
    span=st.integers(0, 100),
)
@settings(deadline=None)
def test_number_returns_exactly_the_values_within_its_range(value, low, span):
    parse = options.number(type(value), minimum=low, maximum=low + span)
    if low <= value <= low + span:
        assert parse(str(value)) == value
    else:
        with pytest.raises(argparse.ArgumentTypeError):
            parse(str(value))


def test_names_are_separated_by_commas():
    assert options.names("msd-musicnn") == ["msd-musicnn"]
    assert options.names("slow,80s pop,models:/musictag/3") == ["slow", "80s pop", "models:/musictag/3"]


@pytest.mark.parametrize("n_workers", ["0", "-1", "two"])
def test_number_of_workers_is_at_least_1(n_workers, capsys):
    parser = argparse.ArgumentParser()
    options.add_workers(parser, 1, "processes")
    with pytest.raises(SystemExit):
        parser.parse_args(["--num-workers", n_workers])
    assert "is not a whole number of at least 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("file://localhost/data/a%20b", "/data/a b"), ("file:///data/a", "/data/a"), ("~/a", "/home/me/a"),
        ("data/a", "data/a"), ("/data/a", "/data/a"), ("s3://bucket/a%20b", "s3://bucket/a%20b"),
    ],
)  # fmt: skip
def test_place_on_this_machine_is_a_plain_path_for_every_library(monkeypatch, text, place):
    monkeypatch.setenv("HOME", "/home/me")
    assert options.location(text) == place


def test_store_is_waited_for_ten_minutes_unless_told_otherwise():
    parser = argparse.ArgumentParser()
    options.add_audio(parser)
    assert options.limits(parser.parse_args([])).store_timeout_s == 600
    assert options.limits(parser.parse_args(["--store-timeout", "0.5"])).store_timeout_s == 30
    parser = argparse.ArgumentParser()
    options.add_limits(parser)  # of a command that reads files of this machine alone
    assert options.limits(parser.parse_args([])) == Limits()
