import datetime

import pyarrow as pa
import pytest

from musictag.catalog.reader import Problem
from musictag.errors import AudioCorruptError, AudioUnreachableError, LedgerError
from musictag.jobs import ledger
from musictag.jobs.ledger import Account, Failed, Held, Work
from musictag.storage import parts
from musictag.storage import tables as storage_tables

SCHEMA = pa.schema([("track_id", pa.string())])
NOW = datetime.datetime.now(datetime.UTC)
EARLIER = NOW - datetime.timedelta(hours=1)
SIGNED = "https://me:pw@host/a.mp3?id=1&sig={}"
WRITTEN = "https://***@host/a.mp3?id=1&sig=***"


def plan(listed, held=None, failed=None, problems=(), max_attempts=3):
    return ledger.make_plan(listed, held or {}, "maker", failed or {}, max_attempts, problems)


def test_a_new_track_is_work():
    failed = {"b": Failed("b.mp3", "e2", "AudioCorruptError", 2)}
    made = plan([("a", "a.mp3", "e1"), ("b", "b.mp3", "e2")], failed=failed)
    assert made.works == (Work("a", "a.mp3", "e1", 0), Work("b", "b.mp3", "e2", 2))
    assert (made.listed, made.unchanged, made.stale, made.superseded) == (2, frozenset(), frozenset(), frozenset())


def test_a_track_with_the_same_uri_key_and_maker_is_unchanged():
    made = plan([("a", "a.mp3", "e1")], {"a": Held("a.mp3", "e1", "maker"), "gone": Held("g.mp3", "e", "maker")})
    assert made.works == ()
    assert made.unchanged == {"a"}
    assert made.listed == 1


@pytest.mark.parametrize("held", [Held("a.mp3", "old", "maker"), Held("old.mp3", "e1", "maker"), Held("a", "b", "c")])
def test_a_track_of_other_audio_is_work_and_its_row_stale(held):
    made = plan([("a", "a.mp3", "e1")], {"a": held})
    assert [work.track_id for work in made.works] == ["a"]
    assert made.stale == {"a"}
    assert made.superseded == frozenset()


def test_a_track_by_another_maker_is_work_and_its_row_of_use_meanwhile():
    made = plan([("a", "a.mp3", "e1")], {"a": Held("a.mp3", "e1", "earlier maker")})
    assert [work.track_id for work in made.works] == ["a"]
    assert made.superseded == {"a"}
    assert made.stale == frozenset()


def test_a_held_track_whose_store_does_not_answer_is_tried_and_keeps_its_row():
    made = plan([("a", "a.mp3", None)], {"a": Held("a.mp3", "e1", "maker")})
    assert made.works == (Work("a", "a.mp3", None),)
    assert made.stale == made.superseded == made.unchanged == frozenset()


def test_a_track_that_nobody_lists_any_more_is_unlisted_but_not_one_whose_row_is_broken():
    held = {track_id: Held("a.mp3", "e1", "maker") for track_id in ("a", "changed", "broken", "left")}
    made = plan([("a", "a.mp3", "e1"), ("changed", "b.mp3", "e1")], held, problems=[Problem(3, "broken", "", "why")])
    assert made.unlisted == {"left"}


@pytest.mark.parametrize(
    ("failed", "attempts"),
    [
        (Failed("a.mp3", "e1", "AudioCorruptError", 2), 2),  # once more
        (Failed("a.mp3", "earlier", "AudioCorruptError", 3), 0),  # other audio
        (Failed("b.mp3", "e1", "AudioCorruptError", 3), 0),  # audio of another place
        (Failed("a.mp3", "e1", "AudioUnreachableError", 9), 9),  # it may be reached now
        (Failed("a.mp3", "e1", "AudioTooLongError", 9), 9),  # a longer one may be allowed now
    ],
)
def test_what_failed_is_tried_again(failed, attempts):
    made = plan([("a", "a.mp3", "e1")], failed={"a": failed})
    assert made.works == (Work("a", "a.mp3", "e1", attempts),)
    assert made.given_up == frozenset()


def test_what_was_never_reached_is_tried_again_however_often_it_failed():
    made = plan([("a", "a.mp3", None)], failed={"a": Failed("a.mp3", None, "AudioUnreachableError", 9)})
    assert made.works == (Work("a", "a.mp3", None, 9),)


def test_audio_that_failed_as_often_as_allowed_is_given_up_and_its_old_row_stale():
    failed = {"a": Failed(WRITTEN, "e1", "AudioCorruptError", 2)}
    held = {"a": Held(WRITTEN, "e0", "maker")}
    made = plan([("a", SIGNED.format("today"), "e1"), ("b", "b.mp3", "e2")], held, failed, max_attempts=2)
    assert (made.given_up, made.stale, made.unlisted) == ({"a"}, {"a"}, frozenset())
    assert [work.track_id for work in made.works] == ["b"]
    assert made.listed == 2


@pytest.mark.parametrize(("prune", "left"), [(False, {"a", "gone"}), (True, {"a"})])
def test_rows_of_other_audio_go_and_with_prune_those_of_unlisted_tracks(tables, prune, left):
    tables.write("a", "changed", "gone")
    held = {track_id: Held("a.mp3", "e", "maker") for track_id in ("a", "changed", "gone")}
    ledger.clear(plan([("a", "a.mp3", "e"), ("changed", "a.mp3", "new")], held), tables.uri, prune=prune)
    assert storage_tables.track_ids(tables.uri) == left


def test_problems_are_listed():
    assert plan([("a", "a.mp3", "e1")], problems=[Problem(3, "b", "", "broken")]).listed == 2


@pytest.mark.parametrize(
    ("n_works", "n_workers", "sizes"),
    [(7, 1, [2, 2, 3]), (7, 2, [1, 2, 2, 2]), (12, 2, [3, 3, 3, 3]), (2, 4, [1, 1]), (0, 2, [])],
)
def test_parts_hold_every_work_in_order_and_as_many_for_each_worker(n_works, n_workers, sizes):
    works = [Work(str(number), "", None) for number in range(n_works)]
    made = ledger.into_parts(works, 3, n_workers)
    assert [len(part) for part in made] == sizes
    assert [work for part in made for work in part] == works


def test_a_part_is_named_after_what_it_holds_and_what_makes_it():
    name = ledger.part_name([Work("a", "a.mp3", "e1"), Work("b", "b.mp3", "e2")], "maker")
    assert name == ledger.part_name([Work("a", "a.mp3", "e1", 3), Work("b", "b.mp3", "e2", 1)], "maker")
    others = [
        ledger.part_name([Work("a", "a.mp3", "e1"), Work("b", "b.mp3", "e2")], "other maker"),
        ledger.part_name([Work("a", "a.mp3", "changed"), Work("b", "b.mp3", "e2")], "maker"),
        ledger.part_name([Work("a", "moved.mp3", "e1"), Work("b", "b.mp3", "e2")], "maker"),
        ledger.part_name([Work("a", "a.mp3", "e1")], "maker"),
        ledger.part_name([Work("a", "a.mp3", None)], "maker"),
        ledger.part_name([Work("a", "a.mp3", "None")], "maker"),
    ]
    assert len({name, *others}) == 7
    assert name.isalnum()


@pytest.mark.parametrize(("error", "stage"), [(AudioUnreachableError, "fetch"), (AudioCorruptError, "decode")])
def test_a_failure_tells_stage_class_reason_and_attempt(error, stage):
    row = ledger.failure(Work("a", "a.mp3", "e1", 2), error("a.mp3: why"))
    assert list(row) == ledger.FAILURES_SCHEMA.names
    assert tuple(row.values())[:-1] == (
        "a",
        "a.mp3",
        "e1",
        stage,
        error.__name__,
        "a.mp3: why",
        3,
    )


def test_a_track_whose_uri_is_signed_anew_is_unchanged_and_is_fetched_by_what_it_is():
    held = {"a": Held(WRITTEN, "e1", "maker")}
    assert plan([("a", SIGNED.format("today"), "e1")], held).unchanged == {"a"}
    assert plan([("a", SIGNED.format("today"), "e2")], held).works == (Work("a", SIGNED.format("today"), "e2"),)


def test_failures_hold_no_secret(tables):
    uri = SIGNED.format("secret")
    row = ledger.failure(Work("a", uri, None), AudioUnreachableError(f"{uri}: cannot be read: 403, url={uri!r}"))
    ledger.record_problems(tables.failures, [Problem(1, "b", uri, f"uri {uri} is bad")], {})
    written = str([row, *storage_tables.read_columns(tables.failures, ledger.FAILURES_SCHEMA.names).to_pylist()])
    assert WRITTEN in written
    assert "secret" not in written
    assert "pw" not in written


class Tables:
    """A table of tracks and its failures."""

    def __init__(self, folder):
        self.uri, self.failures = str(folder / "tracks"), str(folder / "tracks-failures")
        storage_tables.create_table(self.uri, SCHEMA)
        storage_tables.create_table(self.failures, ledger.FAILURES_SCHEMA)

    def write(self, *track_ids):
        part = f"w{storage_tables.version(self.uri)}"
        parts.write(self.uri, part, SCHEMA, [{"track_id": track_id} for track_id in track_ids])

    def fail(self, failed_at, *track_ids, stage="decode", attempts=1):
        rows = [
            {
                "track_id": track_id,
                "uri": f"{track_id}.mp3",
                "audio_etag": "e",
                "stage": stage,
                "error": "AudioCorruptError",
                "attempts": attempts,
                "failed_at": failed_at,
            }
            for track_id in track_ids
        ]
        parts.write(self.failures, f"f{storage_tables.version(self.failures)}", ledger.FAILURES_SCHEMA, rows)

    def attempts(self):
        return {track_id: failed.attempts for track_id, failed in ledger.read_failed(self.failures).items()}

    def settle(self, listed, held=None, problems=(), **options):
        made = plan(listed, held, ledger.read_failed(self.failures), problems)
        return ledger.settle(made, problems, storage_tables.track_ids(self.uri), self.failures, NOW, **options)


@pytest.fixture
def tables(tmp_path):
    return Tables(tmp_path)


def listed(*track_ids):
    return [(track_id, f"{track_id}.mp3", "e") for track_id in track_ids]


def test_the_account_adds_up(tables):
    tables.write("new 1", "new 2", "held")
    tables.fail(NOW, "bad")
    problem = Problem(9, "broken", "", "why")
    ledger.record_problems(tables.failures, [problem], {"broken": Failed("", None, "CatalogError", 1)})
    held = {"held": Held("held.mp3", "e", "maker")}
    account = tables.settle(listed("new 1", "new 2", "bad", "held"), held, [problem])
    assert account == Account(listed=5, written=2, unchanged=1, failed=2)
    assert account.listed == account.written + account.unchanged + account.failed
    assert str(account) == "5 listed = 2 written + 1 unchanged + 2 failed"
    assert tables.attempts() == {"bad": 1, "broken": 2}


def test_a_track_in_neither_table_is_named(tables):
    tables.write("a")
    with pytest.raises(LedgerError, match="1 of 2 tracks are neither written nor failed, such as lost"):
        tables.settle(listed("a", "lost"))


def test_a_failure_of_an_earlier_run_does_not_account_for_a_track(tables):
    tables.fail(EARLIER, "a")
    with pytest.raises(LedgerError, match="such as a"):
        tables.settle(listed("a"))


def test_a_track_that_failed_while_its_old_row_stayed_counts_as_failed(tables):
    tables.write("a")
    tables.fail(NOW, "a")
    account = tables.settle([("a", "a.mp3", None)], {"a": Held("a.mp3", "e", "maker")})
    assert account == Account(listed=1, written=0, unchanged=0, failed=1)


def test_past_failures_go_once_their_tracks_are_settled(tables):
    tables.write("mended", "back as it was")
    tables.fail(EARLIER, "mended", "still bad", "back as it was", "of another catalog")
    tables.fail(EARLIER, "row 7", stage="catalog")
    tables.fail(NOW, "still bad", attempts=2)
    held = {"back as it was": Held("back as it was.mp3", "e", "maker")}
    tables.settle(listed("mended", "still bad", "back as it was"), held)
    assert tables.attempts() == {"still bad": 2, "of another catalog": 1}
    assert storage_tables.read_columns(tables.failures, ("track_id",)).num_rows == 2


def test_prune_forgets_the_failures_of_unlisted_tracks(tables):
    tables.write("a")
    tables.fail(EARLIER, "a", "gone")
    tables.fail(NOW, "bad")
    tables.settle(listed("a", "bad"), prune=True)
    assert tables.attempts() == {"bad": 1}


def test_failures_of_a_part_are_recorded_once(tables):
    rows = [ledger.failure(Work("a", "a.mp3", None), AudioCorruptError("why"))]
    for _ in range(2):
        ledger.record_failures(tables.failures, "p", rows, 0)
    assert storage_tables.read_columns(tables.failures, ("track_id",)).num_rows == 1
    ledger.record_failures(tables.failures, "q", [], 0)
    assert storage_tables.version(tables.failures) == 1
    since = storage_tables.version(tables.failures)
    ledger.record_failures(tables.failures, "p", rows, since)
    assert storage_tables.version(tables.failures) == 2


@pytest.mark.parametrize("prune", [False, True])
def test_what_is_given_up_is_failed_and_its_reason_stays(tables, prune):
    tables.write("a")
    tables.fail(EARLIER, "bad", attempts=3)
    account = tables.settle(listed("a", "bad"), prune=prune)
    assert account == Account(listed=2, written=1, unchanged=0, failed=1)
    assert tables.attempts() == {"bad": 3}


def test_what_is_given_up_and_has_no_reason_is_missing(tables):
    made = plan(listed("bad"), failed={"bad": Failed("bad.mp3", "e", "AudioCorruptError", 3)})
    with pytest.raises(LedgerError, match="such as bad"):
        ledger.settle(made, (), (), tables.failures, NOW)


def test_of_several_failures_the_one_with_most_attempts_counts(tables):
    tables.fail(EARLIER, "a", attempts=3)
    tables.fail(EARLIER, "a", "b", attempts=1)
    assert ledger.read_failed(tables.failures) == {
        "a": Failed("a.mp3", "e", "AudioCorruptError", 3),
        "b": Failed("b.mp3", "e", "AudioCorruptError", 1),
    }


def test_without_a_table_nothing_failed(tmp_path):
    assert ledger.read_failed(str(tmp_path / "none")) == {}


def test_a_catalog_problem_is_a_failure_with_its_row(tables):
    ledger.record_problems(tables.failures, [Problem(4, "a", "a.mp3", "unknown split")], {})
    [row] = storage_tables.read_columns(tables.failures, ledger.FAILURES_SCHEMA.names).to_pylist()
    assert (row["stage"], row["error"], row["message"]) == ("catalog", "CatalogError", "row 4: unknown split")


@pytest.mark.parametrize(("failed", "allowed"), [(0, 0.0), (10, 0.1), (100, 1.0)])
def test_as_many_failures_as_allowed_pass(failed, allowed):
    ledger.check_failures(Account(100, 100 - failed, 0, failed), allowed, "failures")


@pytest.mark.parametrize(("failed", "allowed"), [(1, 0.0), (11, 0.1)])
def test_more_failures_than_allowed_are_refused_with_the_place_of_the_reasons(failed, allowed):
    with pytest.raises(
        LedgerError, match=f"{failed} of 100 tracks failed, more than --max-failures {allowed}.*t-failures"
    ):
        ledger.check_failures(Account(100, 100 - failed, 0, failed), allowed, "t-failures")


def test_an_empty_catalog_has_no_failure():
    ledger.check_failures(Account(0, 0, 0, 0), 0.0, "failures")
