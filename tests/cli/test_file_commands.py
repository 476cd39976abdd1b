import csv
import io
import json

import pytest
from matplotlib.image import imread

from musictag.cli.file_commands import CLIPS_PER_TRACK
from musictag.features import extract
from musictag.features.table import encode_clips
from musictag.models.published import pretrained
from musictag.tagging.tagger import Tagger

pytestmark = pytest.mark.slow


def expected(path, clips_per_track=CLIPS_PER_TRACK, model=pretrained.DEFAULT, top=5):
    """Return the tags that the tagging job would write."""
    tagger = Tagger.load(pretrained.find(model))
    config = tagger.spec.feature_config
    clips, starts, duration_s, _ = extract.track_clips(path, "a", config, clips_per_track)
    start_s = [start * config.hop_length / config.sample_rate for start in starts]
    row = {"clips": encode_clips(clips), "start_s": start_s, "duration_s": duration_s}
    (scores,) = tagger.track_scores([row])
    return sorted(zip(tagger.spec.vocabulary, scores.tolist(), strict=True), key=lambda pair: -pair[1])[:top]


def assert_tags(tags, wanted):
    assert [tag["tag"] for tag in tags] == [tag for tag, _ in wanted]
    assert [tag["score"] for tag in tags] == pytest.approx([score for _, score in wanted], abs=0.002)


def test_json_has_one_object_per_file_with_the_tags_of_the_tagging_job(run, songs):
    code, out, err = run("tag", songs, "--json")
    assert (code, err) == (0, "left out: 1 .jpg\n")
    entries = [json.loads(line) for line in out.splitlines()]
    names = ["a.mp3", "b/c.wav", "b/half a second, 2.wav", "d.m4a", "e.wav", "silence.flac", "爵士.ogg"]
    assert [entry["file"] for entry in entries] == [str(songs / name) for name in names]
    assert entries.pop(5) == {"file": str(songs / "silence.flac"), "tags": [], "silent": True}
    assert all(list(entry) == ["file", "tags"] and len(entry["tags"]) == 5 for entry in entries)
    assert "爵士" in out
    for place in (0, 2):
        assert_tags(entries[place]["tags"], expected(songs / names[place]))


@pytest.mark.parametrize("model", ["mtt-musicnn", "msd-vgg"])
def test_model_top_and_clips_options_take_effect(run, songs, model):
    code, out, _ = run("tag", songs / "a.mp3", "--json", "--model", model, "--top", 3, "--clips-per-track", 1)
    assert code == 0
    assert_tags(json.loads(out)["tags"], expected(songs / "a.mp3", 1, model, 3))


def test_csv_has_one_row_per_tag(run, songs):
    files = [songs / "a.mp3", songs / "b/half a second, 2.wav"]
    code, out, err = run("tag", *files, "--csv", "--top", 2)
    assert (code, err) == (0, "")
    assert out.startswith("file,tag,score,error\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["file"] for row in rows] == [str(file) for file in files for _ in range(2)]
    assert {row["error"] for row in rows} == {""}
    for file, of_file in zip(files, (rows[:2], rows[2:]), strict=True):
        assert_tags([{**row, "score": float(row["score"])} for row in of_file], expected(file, top=2))


def test_text_output_has_tags_and_bars(run, songs):
    code, out, err = run("tag", songs / "a.mp3")
    assert (code, err) == (0, "")
    name, *lines, blank = out.splitlines()
    assert (name, blank, len(lines)) == (str(songs / "a.mp3"), "", 5)
    for line, (tag, score) in zip(lines, expected(songs / "a.mp3"), strict=True):
        assert float(line.split()[0]) == pytest.approx(score, abs=0.007)
        assert line[34:] == tag
        full = line.count("█")
        assert line[8 : 8 + full] == "█" * full
        assert -0.1 < 24 * score - full < 1.1


def test_unreadable_files_are_reported_and_others_are_tagged(run, songs, broken):
    folder, reasons = broken
    missing = folder / "missing.mp3"
    argv = ("tag", folder, songs / "e.wav", missing, songs / "b/c.wav", "--top", 1)
    code, out, err = run(*argv)
    assert code == 1
    assert [line for line in out.splitlines() if line.startswith("/")] == [str(songs / "e.wav"), str(songs / "b/c.wav")]
    *lines, last = err.splitlines()
    assert last == "error: 7 of 9 files could not be tagged"
    told = dict(line.split(": ", 1) for line in lines)
    assert set(told) == {*(f"{folder}/{name}" for name in reasons), str(missing)}
    for name, reason in reasons.items():
        assert reason in told[f"{folder}/{name}"]
    assert "No such file" in told[str(missing)]

    code, out, err = run(*argv, "--json")
    assert (code, err) == (1, f"{last}\n")
    entries = {entry["file"]: entry for entry in map(json.loads, out.splitlines())}
    assert {name: entry["error"] for name, entry in entries.items() if "error" in entry} == told
    assert all(set(entry) in ({"file", "tags"}, {"file", "error"}) for entry in entries.values())

    code, out, err = run(*argv, "--csv")
    assert (code, err) == (1, f"{last}\n")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert {row["file"]: row["error"] for row in rows if row["error"]} == told
    assert [(row["tag"] == "", row["score"] == "") for row in rows] == [(bool(row["error"]),) * 2 for row in rows]


def test_folder_without_music_is_an_error(run, tmp_path):
    code, out, err = run("tag", tmp_path)
    assert (code, out) == (1, "")
    assert err.startswith(f"{tmp_path}: the folder holds no audio file (")
    assert err.endswith("error: 1 of 1 file could not be tagged\n")


def test_long_file_is_tagged_by_some_clips_and_limited_as_a_whole(run, tmp_path, music, write_audio):
    write_audio(tmp_path / "mix.wav", music(40.0, 8_000, 1), 8_000)
    code, out, _ = run("tag", tmp_path / "mix.wav", "--max-hours", 0.01, "--json")
    assert code == 0, out
    code, _, err = run("tag", tmp_path / "mix.wav", "--max-hours", 0.01, "--clips-per-track", "all")
    assert code == 1
    assert "mix.wav: longer than 0.01 hours: if it is one track, raise --max-hours" in err
    assert run("taggram", tmp_path / "mix.wav", "--max-hours", 0.01, "-o", tmp_path / "a.png")[0] == 1


def test_file_urls_and_links_are_accepted_and_other_files_are_counted(run, songs, tmp_path):
    (tmp_path / "elsewhere").symlink_to(songs)
    (tmp_path / "list.m3u").touch()
    url = (songs / "爵士.ogg").as_uri()
    code, out, err = run("tag", url, tmp_path, "--json", "--clips-per-track", 1)
    assert code == 0
    files = [json.loads(line)["file"] for line in out.splitlines()]
    assert files[:2] == [str(songs / "爵士.ogg"), f"{tmp_path}/elsewhere/a.mp3"]
    assert len(files) == 8
    assert err.startswith("left out: 1 .jpg, 1 .m3u\n")
    code, _, err = run("tag", tmp_path, "--no-follow-links")
    assert code == 1
    assert "the folder holds no audio file" in err


def test_several_files_show_a_progress_bar_on_a_terminal(run, songs, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    code, out, err = run("tag", songs / "b", "--json")
    assert code == 0
    assert [json.loads(line)["file"] for line in out.splitlines()] == [
        str(songs / "b/c.wav"), str(songs / "b/half a second, 2.wav")
    ]  # fmt: skip
    assert "2/2" in err
    assert "2/2" not in run("tag", songs / "e.wav", "--json")[2]


@pytest.mark.parametrize("name", ["a.mp3", "b/half a second, 2.wav"])
def test_taggram_draws_all_clips(run, songs, tmp_path, name):
    code, out, err = run("taggram", songs / name, "-o", tmp_path / "made/a.png", "--top", 4)
    assert (code, err) == (0, "")
    assert out == f"4 tags over {'7.0 s in 3' if name == 'a.mp3' else '0.5 s in 1'} clips; {tmp_path}/made/a.png\n"
    assert imread(tmp_path / "made/a.png").shape[1] == 1800


def test_failed_taggram_says_why(run, songs, broken, tmp_path):
    code, _, err = run("taggram", songs / "e.wav", "-o", tmp_path / "a.gif")
    assert (code, err) == (2, f"error: -o {tmp_path}/a.gif: the picture's name must end in .png, .svg, .pdf\n")
    (tmp_path / "file").touch()
    code, _, err = run("taggram", songs / "e.wav", "-o", tmp_path / "file/a.png")
    assert code == 1
    assert err.startswith(f"error: {tmp_path}/file/a.png: cannot be written: ")
    code, _, err = run("taggram", broken[0] / "text.mp3", "-o", tmp_path / "a.png")
    assert (code, (tmp_path / "a.png").exists()) == (1, False)
    assert err.startswith(f"error: {broken[0]}/text.mp3: not audio")
