"""The settings of a night: what is wrong is named, and the deadline is the next moment of its time of day."""

import datetime
import os
import time
from pathlib import Path
from typing import Any

import pytest

from musictag.errors import UsageError
from musictag.jobs.night_config import JOBS, NightConfig, arguments, parse_config, read_config

PLACES = {"catalog": "c.csv", "features": "f", "tags": "t"}
UTC = datetime.UTC


def test_settings_of_every_table_are_read(tmp_path: Path) -> None:
    path = tmp_path / "night.toml"
    path.write_text("""
catalog = "s3://music/catalog.csv"
features = "s3://music/features"
tags = "s3://music/tags"
model = "models:/musictag@next"
[budget]
deadline = "06:30"
max_tracks = 1_000
[housekeeping]
keep_hours = 24
compact = false
[featurize]
options = ["--prune"]
command = ["run-on-dask", "--workers=4"]
""")
    config = read_config(path)
    assert (config.deadline, config.max_tracks, config.keep_hours, config.compact) == (
        datetime.time(6, 30), 1_000, 24, False,
    )  # fmt: skip
    assert config.jobs["featurize"].command == ("run-on-dask", "--workers=4")
    moment = datetime.datetime(2026, 12, 1, 6, 30, tzinfo=UTC)
    assert arguments(config, "featurize", moment, "r/featurize.json") == [
        "--catalog", "s3://music/catalog.csv", "--features", "s3://music/features", "--prune", "--max-tracks", "1000",
        "--deadline", "2026-12-01T06:30:00+00:00", "--report", "r/featurize.json",
    ]  # fmt: skip
    assert arguments(config, "tag", None, "r/tag.json", plan_only=True) == [
        "--features", "s3://music/features", "--tags", "s3://music/tags", "--model", "models:/musictag@next",
        "--max-tracks", "1000", "--report", "r/tag.json", "--plan-only",
    ]  # fmt: skip


def test_defaults_run_on_this_machine() -> None:
    config = parse_config(PLACES)
    assert [config.jobs[job].command for job in JOBS] == [(), ()]
    assert "--runner=DirectRunner" in arguments(config, "featurize", None, "r")
    assert "--max-tracks" not in arguments(config, "tag", None, "r")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"catlog": "c"}, "catlog is no setting; did you mean catalog?"),
        ({"x": 1}, "x is no setting; known are catalog, features"),
        ({"budget": {"dedline": "06:00"}}, "budget.dedline is no setting; did you mean budget.deadline?"),
        ({"tag": {"option": []}}, "tag.option is no setting; did you mean tag.options?"),
        ({"budget": {"deadline": "6 o'clock"}}, 'budget.deadline is "6 o\'clock": it must be a time of day such as'),
        ({"budget": {"deadline": "06:00+01:00"}}, "it is a time of this machine's zone"),
        ({"budget": {"max_tracks": 0}}, "max_tracks is 0: it must be at least 1"),
        ({"budget": {"max_tracks": True}}, "budget.max_tracks is True: it must be a whole number"),
        ({"budget": {"max_tracks": "many"}}, "budget.max_tracks is 'many': it must be a whole number"),
        ({"housekeeping": {"compact": 1}}, "housekeeping.compact is 1: it must be true or false"),
        ({"featurize": {"options": "--prune"}}, "featurize.options is '--prune': it must be a list of texts"),
        ({"featurize": {"command": ["x", 1]}}, "it must be a list of texts"),
        ({"tags": 1}, "tags is 1: it must be a text"),
        ({"budget": 3}, "budget is 3: it must be a table"),
    ],
)
def test_wrong_setting_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_config({**PLACES, **changed})
    assert message in str(raised.value)


@pytest.mark.parametrize("key", PLACES)
def test_missing_place_is_named(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} is missing"):
        parse_config({name: place for name, place in PLACES.items() if name != key})


def test_file_that_is_missing_or_no_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nothing\.toml: cannot be read"):
        read_config(tmp_path / "nothing.toml")
    (tmp_path / "broken.toml").write_text("catalog = ")
    with pytest.raises(UsageError, match=r"broken\.toml: is not TOML: "):
        read_config(tmp_path / "broken.toml")


@pytest.fixture
def berlin() -> Any:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("berlin")
@pytest.mark.parametrize(
    ("started", "ends"),
    [
        ("2026-12-01T22:00+00:00", "2026-12-02T06:00+01:00"),
        ("2026-12-01T04:59+00:00", "2026-12-01T06:00+01:00"),
        ("2026-12-01T05:00+00:00", "2026-12-02T06:00+01:00"),
        ("2026-10-24T22:00+00:00", "2026-10-25T06:00+01:00"),  # the clock is set back in this night
        ("2027-03-27T23:00+00:00", "2027-03-28T06:00+02:00"),  # and forward in this one
    ],
)
def test_deadline_is_the_next_moment_of_its_time_of_day(started: str, ends: str) -> None:
    config = NightConfig("c", "f", "t", deadline=datetime.time(6))
    moment = config.deadline_after(datetime.datetime.fromisoformat(started))
    assert moment == datetime.datetime.fromisoformat(ends)
    assert parse_config(PLACES).deadline_after(datetime.datetime.fromisoformat(started)) is None


def test_featurizing_has_half_of_the_night() -> None:
    started = datetime.datetime(2026, 12, 1, 22, tzinfo=UTC)
    config = NightConfig("c", "f", "t", deadline=datetime.time(6))
    deadlines = config.deadlines(started)
    assert deadlines["tag"] == config.deadline_after(started)
    assert deadlines["featurize"] - started == (deadlines["tag"] - started) / 2
    assert parse_config(PLACES).deadlines(started) == {"featurize": None, "tag": None}
