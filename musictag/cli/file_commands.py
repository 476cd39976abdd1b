"""The commands that read music files: `musictag tag` and `musictag taggram`."""

import argparse
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from musictag.catalog.folder import describe_left_out
from musictag.cli import local_files, options, output
from musictag.cli.local_files import DecodedTrack, path_text
from musictag.cli.model_commands import add_model, find_model
from musictag.errors import AudioEmptyError, AudioError, LedgerError, StoreError, UsageError
from musictag.evaluation.calibration import calibrate
from musictag.features.clips import clip_weights, is_silent
from musictag.jobs import progress
from musictag.storage import text
from musictag.tagging.tagger import Tagger

Float32 = npt.NDArray[np.float32]

CLIPS_PER_TRACK = 10
PICTURE_SUFFIXES = (".png", ".svg", ".pdf")


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `tag` and `taggram` to the commands of a parser."""
    tag = commands.add_parser("tag", help="print the tags of files, or of all music in folders")
    add_model(tag)
    tag.add_argument("paths", type=options.local_path, nargs="+", metavar="FILE_OR_FOLDER")
    tag.add_argument("--top", type=options.count, default=5, metavar="N", help="tags per file (default: %(default)s)")
    tag.add_argument(
        "--clips-per-track", type=options.clips_per_track, default=CLIPS_PER_TRACK, metavar="N|all",
        help="clips of 3 s to score, evenly spread (default: %(default)s)",
    )  # fmt: skip
    options.add_limits(tag)
    options.add_follow_links(tag)
    form = tag.add_mutually_exclusive_group()
    form.add_argument("--csv", dest="form", action="store_const", const=output.as_csv, help=output.CSV_HEADER.strip())
    form.add_argument("--json", dest="form", action="store_const", const=output.as_json, help="one object per line")
    tag.set_defaults(run=run_tag, form=output.as_text)

    taggram = commands.add_parser("taggram", help="draw a file's scores over time")
    add_model(taggram)
    taggram.add_argument("path", type=options.local_path, metavar="FILE")
    taggram.add_argument(
        "-o", "--output", type=Path, required=True, metavar="PICTURE",
        help=f"picture to write ({', '.join(PICTURE_SUFFIXES)})",
    )  # fmt: skip
    taggram.add_argument(
        "--top", type=options.count, default=10, metavar="N", help="tags to show (default: %(default)s)"
    )
    options.add_limits(taggram)
    taggram.set_defaults(run=run_taggram)


def run_tag(args: argparse.Namespace) -> None:
    """Print the tags of each file. Raises `LedgerError` at the end if a file could not be tagged."""
    tagger = Tagger.load(find_model(args.model))
    paths, left_out = local_files.find(args.paths, follow_links=args.follow_links)
    if left_out:
        sys.stderr.write(f"left out: {text.printable(describe_left_out(left_out))}\n")
    tracks = local_files.read_ahead(paths, tagger.spec.feature_config, args.clips_per_track, options.limits(args))
    shown = progress.bar(tracks, "tag", len(paths), "file") if len(paths) > 1 and sys.stderr.isatty() else tracks
    n_failed = 0
    if args.form is output.as_csv:
        _write(output.CSV_HEADER)
    for path, track in shown:
        if isinstance(track, AudioError):
            n_failed += 1
            if args.form is output.as_text:
                tqdm.write(text.printable(str(track)), file=sys.stderr)
            _write(args.form(_shown(path), track))
        else:
            _warn_of_damage(path, track)
            _write(args.form(_shown(path), _top_tags(tagger, track, args.top)))
    if n_failed:
        raise LedgerError(f"{n_failed} of {len(paths)} file{'s' * (len(paths) > 1)} could not be tagged")


def run_taggram(args: argparse.Namespace) -> None:
    """Draw the taggram of one file."""
    target = path_text(args.output)
    if args.output.suffix.lower() not in PICTURE_SUFFIXES:
        raise UsageError(f"-o {target}: the picture's name must end in {', '.join(PICTURE_SUFFIXES)}")
    from musictag.cli import taggram
    from musictag.evaluation import charts  # here: matplotlib takes a second to import

    tagger = Tagger.load(find_model(args.model))
    track = local_files.read(args.path, tagger.spec.feature_config, limits=options.limits(args))
    _warn_of_damage(args.path, track)
    if is_silent(track.clips):
        raise AudioEmptyError(f"{path_text(args.path)}: the audio is silent: there are no tags to draw")
    clip_scores, track_scores = calibrated_scores(tagger, track)
    shown = _best(track_scores, args.top)
    figure = taggram.draw(
        clip_scores[:, shown],
        track_scores[shown],
        [tagger.spec.vocabulary[k] for k in shown],
        track.start_s,
        track.duration_s,
        tagger.spec.feature_config.clip_seconds,
        title=path_text(Path(args.path.name)),
        subtitle=f"tags over time by {args.model}",
    )
    try:
        charts.save_figure(figure, args.output)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror or error}") from error
    progress.echo(f"{len(shown)} tags over {track.duration_s:.1f} s in {len(clip_scores)} clips; {target}")


def calibrated_scores(tagger: Tagger, track: DecodedTrack) -> tuple[Float32, Float32]:
    """Return the calibrated scores of the clips (C, K) and of the whole track (K,)."""
    clip_scores = tagger.raw_clip_scores(track.clips)
    weights = clip_weights(track.start_s, track.duration_s, tagger.spec.feature_config)
    track_scores = tagger.raw_track_scores(clip_scores, track.clips, weights)
    return calibrate(clip_scores, tagger.spec.calibration), calibrate(track_scores, tagger.spec.calibration)


def _best(scores: Float32, n_tags: int) -> list[int]:
    """Return the indices of the highest scores (K,), best first."""
    return [int(k) for k in np.argsort(-scores, kind="stable")[:n_tags]]


def _top_tags(tagger: Tagger, track: DecodedTrack, n_tags: int) -> output.ScoredTags:
    if is_silent(track.clips):
        return []
    _, scores = calibrated_scores(tagger, track)
    return [(tagger.spec.vocabulary[k], round(float(scores[k]), 4)) for k in _best(scores, n_tags)]


def _shown(path: Path) -> str:
    """Return a path as a terminal can show it, or for programs as it is."""
    return text.printable(path_text(path)) if sys.stdout.isatty() else path_text(path)


def _warn_of_damage(path: Path, track: DecodedTrack) -> None:
    if track.damaged_s:
        message = f"{path_text(path)}: damaged: {track.damaged_s:.2f} of {track.duration_s:.2f} s are left out"
        tqdm.write(text.printable(message), file=sys.stderr)


def _write(lines: str) -> None:
    tqdm.write(lines, file=sys.stdout, end="")  # tqdm's own write does not break the progress bar
    sys.stdout.flush()
