"""A folder of songs for tests, and the nights that tag it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from musictag.storage import tables

SCRIPT = Path(__file__).parents[1] / "pipelines/nightly.py"


class Library:
    """A folder of songs, and the settings of its nights."""

    def __init__(self, folder: Path, write_audio: Any, music: Any) -> None:
        self.folder, self.songs = folder, folder / "songs"
        self.songs.mkdir()
        self._first = write_audio(folder / "first.flac", music(4.0, 16_000), 16_000)
        self.configure()

    def add(self, *names: str) -> None:
        for name in names:
            os.link(self._first, self.songs / f"{name}.flac")

    def configure(self, more: str = "", model: str = "mtt-musicnn") -> None:
        self.config = self.folder / "night.toml"
        self.config.write_text(
            f"catalog = '{self.songs}'\nfeatures = '{self.folder}/features'\ntags = '{self.folder}/tags'\n"
            f"model = '{model}'\nsummary = '{self.folder}/summary.json'\nmetrics = '{self.folder}/night.prom'\n"
            f"reports = '{self.folder}/reports'\n{more}"
        )

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, str(SCRIPT), "--config", str(self.config)], cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{self.folder}/mlflow.db"},
        )  # fmt: skip

    def night(self, code: int = 0) -> tuple[str, str, dict[str, Any]]:
        """Run a night; return stdout, stderr and the summary."""
        process = self.start()
        out, err = process.communicate(timeout=280)
        assert process.returncode == code, err
        assert "Traceback" not in err
        return out, err, json.loads((self.folder / "summary.json").read_text())

    def tagged(self) -> set[str]:
        rows = tables.read_columns(str(self.folder / "tags"), ("track_id",))["track_id"].to_pylist()
        assert len(rows) == len(set(rows))
        return {row.removesuffix(".flac") for row in rows}
