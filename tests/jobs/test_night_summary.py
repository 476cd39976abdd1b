"""The summary of a night, and its metrics as Prometheus reads them."""

import datetime

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from musictag.jobs.night_summary import JobResult, openmetrics, summary

STARTED = datetime.datetime(2026, 12, 1, 22, tzinfo=datetime.UTC)
ENDED = STARTED + datetime.timedelta(hours=3)
FEATURIZED = {
    "listed": 10, "written": 6, "unchanged": 1, "failed": 2, "deferred": 1, "runs_left": 1, "seconds": 60.0,
    "failed_by_error": {"AudioEmptyError": 2}, "core_seconds": 120.0, "gpu_seconds": 0.0,
    "oldest_waiting_seconds": 0.0,
}  # fmt: skip
NOTHING = {"has_work": False, "listed": 6, "tasks": 0, "unchanged": 5, "failed": 1, "oldest_waiting_seconds": 7_200.0}


def test_summary_says_whether_the_night_succeeded_and_what_is_left() -> None:
    results = {"featurize": JobResult(0, FEATURIZED, was_needed=True), "tag": JobResult(0, NOTHING, was_needed=False)}
    night = summary(STARTED, ENDED, results, [])
    assert (night["succeeded"], night["nights_left"]) == (True, 1)
    assert night["jobs"]["featurize"] == {"exit_code": 0, "was_needed": True, **FEATURIZED}
    assert night["started"] == "2026-12-01T22:00:00+00:00"
    assert summary(STARTED, ENDED, results, ["a table is broken"])["succeeded"] is False


def test_summary_of_jobs_that_failed_or_wrote_nothing() -> None:
    unknown = {**FEATURIZED, "written": 0, "runs_left": None}
    night = summary(STARTED, ENDED, {"featurize": JobResult(1, unknown, was_needed=True)}, [])
    assert (night["succeeded"], night["nights_left"]) == (False, None)
    night = summary(STARTED, ENDED, {"featurize": JobResult(137, None, was_needed=True)}, [])
    assert night["jobs"] == {"featurize": {"exit_code": 137, "was_needed": True}}
    assert night["nights_left"] is None


def test_metrics_are_read_back_by_the_parser_of_prometheus() -> None:
    results = {
        "featurize": JobResult(0, FEATURIZED, was_needed=True),
        "tag": JobResult(1, NOTHING, was_needed=False),
        "lost": JobResult(137, None, was_needed=True),
    }
    text = openmetrics(summary(STARTED, ENDED, results, []))
    order = ("job", "outcome", "error")
    samples = {
        (
            sample.name.removeprefix("musictag_night_"),
            *(sample.labels[name] for name in order if name in sample.labels),
        ): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples[("succeeded",)] == 0
    assert samples[("ended_timestamp_seconds",)] == ENDED.timestamp()
    assert samples["tracks", "featurize", "deferred"] == 1
    assert samples["tracks", "tag", "unchanged"] == 5
    assert samples["failed_tracks", "featurize", "AudioEmptyError"] == 2
    assert samples["core_seconds", "featurize"] == 120
    assert samples["oldest_waiting_seconds", "tag"] == 7_200
    assert samples["exit_code", "lost"] == 137
    assert ("tracks", "lost", "listed") not in samples
