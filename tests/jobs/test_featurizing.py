import pytest

from musictag.features.config import FeatureConfig
from musictag.jobs.featurizing import TRACKS_AHEAD, featurize_tasks
from musictag.jobs.plan_files import Task
from musictag.storage import etags

CONFIG = FeatureConfig()


@pytest.mark.slow
def test_each_task_gives_a_row_or_a_failure_in_order(tmp_path, music, write_audio):
    write_audio(tmp_path / "a.wav", music(1.0), 44_100)
    (tmp_path / "b.wav").write_text("the lyrics of a song")
    tasks = [Task(str(n), str(tmp_path / ("b.wav" if n == 2 else "a.wav")), None) for n in range(6)]
    outcomes = list(featurize_tasks(tasks, CONFIG))
    assert [row and row["track_id"] for row, _ in outcomes] == ["0", "1", None, "3", "4", "5"]
    assert [failure and failure["error"] for _, failure in outcomes] == [
        None,
        None,
        "AudioUnsupportedError",
        *[None] * 3,
    ]


@pytest.mark.slow
def test_few_tasks_are_taken_ahead(tmp_path, music, write_audio):
    path = str(write_audio(tmp_path / "a.wav", music(1.0), 44_100))
    taken = []
    rows = featurize_tasks((taken.append(n) or Task(str(n), path, None) for n in range(9)), CONFIG)
    for n in range(6):
        assert next(rows)[0]["track_id"] == str(n)
        assert len(taken) == n + 1 + TRACKS_AHEAD
    rows.close()
    assert len(taken) == 6 + TRACKS_AHEAD


def test_the_etag_of_the_plan_is_kept_and_the_store_is_asked_only_without_one(tmp_path, music, write_audio):
    path = str(write_audio(tmp_path / "a.wav", music(1.0), 44_100))
    tasks = [Task("known", path, "of the catalog"), Task("unknown", path, None)]
    outcomes = featurize_tasks(tasks, FeatureConfig())
    found = {row["track_id"]: row["audio_etag"] for row, _ in outcomes}
    assert found == {"known": "of the catalog", "unknown": etags.audio_etag(path)}
