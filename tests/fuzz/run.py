"""Fuzz the decoding layer for some minutes, over native crashes, which the sandbox turns into one lost track each.

python tests/fuzz/run.py CORPUS_FOLDER MINUTES

Ends with 1 at the first finding: bytes that get past the decoding layer even in a sandbox, or take too much memory.
"""

import subprocess
import sys
import time
from pathlib import Path

from musictag.errors import AudioError
from musictag.features.config import FeatureConfig
from musictag.features.decoder_process import DecoderProcess

TARGET = Path(__file__).with_name("fuzz_audio.py")
# What reads where it should not does not crash each time.
REPLAYS = 10
# Bytes of an input, s that it may take, MiB that all may take together; stderr is not for the decoders' messages.
LIMITS = "-max_len=100000", "-timeout=60", "-rss_limit_mb=2048", "-close_fd_mask=2", "-print_final_stats=1"


def fuzz(corpus: Path, seconds: int) -> Path | None:
    """Run libFuzzer until its time is over; the input that ended it earlier, if any."""
    found = corpus.with_name(f"{corpus.name}-found")
    command = [sys.executable, str(TARGET), str(corpus), *LIMITS, f"-max_total_time={seconds}"]
    ended = subprocess.run([*command, f"-exact_artifact_path={found}"], check=False)
    return found if ended.returncode else None


def gets_past(found: Path) -> bool:
    """Whether an input does what it should not in a sandbox too."""
    with DecoderProcess(time_limit_s=60) as sandbox:
        for clips_per_track in (None, 3) * REPLAYS:
            try:
                sandbox.track_clips(found, "found", FeatureConfig(clip_frames=4), clips_per_track)
            except AudioError as error:
                if type(error).__name__ in ("AudioCrashError", "AudioTimeoutError"):
                    sys.stdout.write(f"\n{error}: one track lost, the run goes on\n")
                    return False
    return True


def main() -> int:
    """As the module says."""
    corpus, end = Path(sys.argv[1]), time.monotonic() + 60 * float(sys.argv[2])
    while (left := int(end - time.monotonic())) > 0:
        if (found := fuzz(corpus, left)) and gets_past(found):
            sys.stdout.write(f"\nA finding: {found}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
