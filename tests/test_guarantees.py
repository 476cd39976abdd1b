"""The page of guarantees names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs/guarantees.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`([\w/]+(?:\.py|/))(?:::(\w+))?`", PAGE)


def test_every_named_test_exists() -> None:
    assert len(NAMED) > 20
    for path, function in NAMED:
        assert (TESTS / path).exists(), path
        assert not function or f"def {function}(" in (TESTS / path).read_text(encoding="utf-8"), function


def test_every_line_names_a_test() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith("| guarantee")]
    assert all("`" in line.rpartition(" | ")[2] for line in lines)
