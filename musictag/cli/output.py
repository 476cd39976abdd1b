"""The output of `musictag tag`: text for people, CSV or JSON for programs."""

import csv
import io
import json

from musictag.errors import AudioError
from musictag.storage.text import printable

ScoredTags = list[tuple[str, float]]
"""Tags and their scores, best first; none for a silent file."""

BAR_CELLS = 24
CSV_HEADER = "file,tag,score,error\n"


def as_text(name: str, result: ScoredTags | AudioError) -> str:
    """Return a file's name and a line per tag; nothing for an error, which is printed on standard error."""
    if isinstance(result, AudioError):
        return ""
    return "\n".join([printable(name), *(map(_bar_line, result) if result else ["  silent: no tags"])]) + "\n\n"


def as_csv(name: str, result: ScoredTags | AudioError) -> str:
    """Return rows with the columns of `CSV_HEADER`: one per tag, or one with the error or the word `silent`."""
    rows: list[tuple[str | float, ...]]
    if isinstance(result, AudioError):
        rows = [(name, "", "", _reason(name, result))]
    else:
        rows = [(name, tag, score, "") for tag, score in result] or [(name, "", "", "silent")]
    return "".join(map(_csv_line, rows))


def as_json(name: str, result: ScoredTags | AudioError) -> str:
    """Return a JSON object on one line."""
    if isinstance(result, AudioError):
        entry: dict[str, object] = {"file": name, "error": _reason(name, result)}
    else:
        entry = {"file": name, "tags": [{"tag": tag, "score": score} for tag, score in result]}
        if not result:
            entry["silent"] = True
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _csv_line(row: tuple[str | float, ...]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(row)  # its default line end makes it quote fields with a carriage return as well
    return line.getvalue().removesuffix("\r\n") + "\n"


def _bar_line(tag_score: tuple[str, float]) -> str:
    # The tag is last, so that nothing has to be aligned after characters of unknown width.
    tag, score = tag_score
    full, eighths = divmod(round(score * BAR_CELLS * 8), 8)
    cells = "\u2588" * full + (chr(0x2590 - eighths) if eighths else "")
    return f"  {score:.2f}  {cells:<{BAR_CELLS}}  {tag}"


def _reason(name: str, error: AudioError) -> str:
    return str(error).removeprefix(f"{name}: ")
