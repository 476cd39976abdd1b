"""What `musictag tag` answers of a file: text for a person, CSV or JSON for a program."""

import csv
import io
import json

from musictag.errors import AudioError

Scored = list[tuple[str, float]]
"""Tags and their scores, best first."""

BAR_CELLS = 24
CSV_HEADER = "file,tag,score,error\n"


def as_text(name: str, found: Scored | AudioError) -> str:
    """A file and its tags for a person; nothing of one that failed, which standard error tells."""
    return "" if isinstance(found, AudioError) else "\n".join([name, *map(_row, found)]) + "\n\n"


def as_csv(name: str, found: Scored | AudioError) -> str:
    """Lines of the columns of `CSV_HEADER`: one a tag, or one with the error."""
    rows: list[tuple[str | float, ...]]
    if isinstance(found, AudioError):
        rows = [(name, "", "", _reason(name, found))]
    else:
        rows = [(name, *tag_score, "") for tag_score in found]
    lines = io.StringIO()
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return lines.getvalue()


def as_json(name: str, found: Scored | AudioError) -> str:
    """A JSON object, on a line."""
    if isinstance(found, AudioError):
        entry: dict[str, object] = {"file": name, "error": _reason(name, found)}
    else:
        entry = {"file": name, "tags": [{"tag": tag, "score": score} for tag, score in found]}
    return json.dumps(entry, ensure_ascii=False) + "\n"


def _row(tag_score: tuple[str, float]) -> str:
    # The tag stands last: so nothing need be aligned after it, whatever its script.
    tag, score = tag_score
    full, eighths = divmod(round(score * BAR_CELLS * 8), 8)
    cells = "\u2588" * full + (chr(0x2590 - eighths) if eighths else "")
    return f"  {score:.2f}  {cells:<{BAR_CELLS}}  {tag}"


def _reason(name: str, error: AudioError) -> str:
    return str(error).removeprefix(f"{name}: ")
