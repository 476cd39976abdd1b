"""The command `musictag`: tags of your own files in seconds, on one machine, with no engine.

musictag tag song.mp3
musictag tag music/ --json > tags.jsonl
musictag taggram song.mp3 -o song.png
musictag weights
musictag register msd-musicnn
musictag verify data/features
musictag rollback data/tags
musictag vacuum data/features
"""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from musictag.cli import local_files, options, output
from musictag.cli.local_files import Track, printable
from musictag.cli.output import Scored
from musictag.errors import AudioError, LedgerError, StoreError, UsageError
from musictag.evaluation.calibration import calibrate
from musictag.features.clips import clip_weights
from musictag.jobs import progress
from musictag.jobs.process import run_main
from musictag.models.published import pretrained
from musictag.tagging.tagger import Tagger

Float32 = npt.NDArray[np.float32]

CLIPS_PER_TRACK = 10
KEEP_HOURS = 7 * 24
VERSIONS = 20
PICTURES = (".png", ".svg", ".pdf")


def find_model(name: str) -> Path:
    """The artifact folder of a published model's name, an MLflow uri or a folder.

    Raises `UsageError` if it is none of these, else what `pretrained.find` and `registry.fetch` raise.
    """
    if name in pretrained.PUBLISHED:
        return pretrained.find(name)
    if name.startswith(("models:/", "runs:/")):
        from musictag.engines import mlflow_registry  # here: MLflow takes seconds to import

        mlflow_registry.connect()
        return mlflow_registry.fetch(name).folder
    if not Path(name).is_dir():
        raise UsageError(
            f"there is no model {name!r}: name {', '.join(pretrained.PUBLISHED)}, a model's folder, "
            "models:/musictag@champion or another uri of MLflow (models:/..., runs:/...)"
        )
    return Path(name)


def score(tagger: Tagger, track: Track) -> tuple[Float32, Float32]:
    """Calibrated scores of the clips (C, K) and of the whole track (K,)."""
    of_clips = tagger.clip_scores(track.clips)
    weights = clip_weights(track.start_s, track.duration_s, tagger.spec.feature_config)
    of_track = tagger.joined_scores(of_clips, track.clips, weights)
    return calibrate(of_clips, tagger.spec.calibration), calibrate(of_track, tagger.spec.calibration)


def best(scores: Float32, n_tags: int) -> list[int]:
    """The tags of the highest scores (K,), best first, as their places in the vocabulary."""
    return [int(k) for k in np.argsort(-scores, kind="stable")[:n_tags]]


def run_tag(args: argparse.Namespace) -> None:
    """`musictag tag`. Raises `LedgerError` at the end if a file could not be tagged."""
    tagger = Tagger.load(find_model(args.model))
    vocabulary = tagger.spec.vocabulary
    paths = local_files.find(args.paths)
    tracks = local_files.read_ahead(paths, tagger.spec.feature_config, args.clips_per_track)
    shown = progress.bar(tracks, "tag", len(paths), "file") if len(paths) > 1 and sys.stderr.isatty() else tracks
    n_failed = 0
    if args.form is output.as_csv:
        _write(output.CSV_HEADER)
    for path, track in shown:
        found: Scored | AudioError
        if isinstance(track, AudioError):
            n_failed += 1
            found = track
            if args.form is output.as_text:
                tqdm.write(str(track), file=sys.stderr)
        else:
            scores = score(tagger, track)[1]
            found = [(vocabulary[k], round(float(scores[k]), 4)) for k in best(scores, args.top)]
        _write(args.form(printable(path), found))
    if n_failed:
        raise LedgerError(f"{n_failed} of {len(paths)} file{'s' * (len(paths) > 1)} could not be tagged")


def _write(text: str) -> None:
    tqdm.write(text, file=sys.stdout, end="")  # around the progress bar, if there is one
    sys.stdout.flush()


def run_taggram(args: argparse.Namespace) -> None:
    """`musictag taggram`."""
    target = printable(args.output)
    if args.output.suffix.lower() not in PICTURES:
        raise UsageError(f"-o {target}: the picture's name must end in {', '.join(PICTURES)}")
    from musictag.cli import taggram
    from musictag.evaluation import charts  # here: matplotlib takes a second to import

    tagger = Tagger.load(find_model(args.model))
    track = local_files.read(args.path, tagger.spec.feature_config)
    of_clips, of_track = score(tagger, track)
    chosen = best(of_track, args.top)
    figure = taggram.draw(
        of_clips[:, chosen],
        of_track[chosen],
        [tagger.spec.vocabulary[k] for k in chosen],
        track.start_s,
        track.duration_s,
        title=printable(Path(args.path.name)),
        subtitle=f"tags over time by {args.model}",
    )
    try:
        charts.save_figure(figure, args.output)
    except OSError as error:
        raise StoreError(f"{target}: cannot be written: {error.strerror}") from error
    progress.echo(f"{len(chosen)} tags over {track.duration_s:.1f} s in {len(of_clips)} clips; {target}")


def run_weights(args: argparse.Namespace) -> None:
    """`musictag weights`."""
    folders = pretrained.install(args.wheel)
    progress.echo(f"{len(folders)} models ({', '.join(folder.name for folder in folders)}); {pretrained.folder()}")


def run_register(args: argparse.Namespace) -> None:
    """`musictag register`. The first model becomes the champion; later ones leave it in its place."""
    from musictag.engines import mlflow_registry

    mlflow_registry.connect()
    version = mlflow_registry.adopt(mlflow_registry.fetch(args.model))
    progress.echo(f"{args.model} is version {version} of {mlflow_registry.MODEL}")
    champion = mlflow_registry.alias_version("champion")
    if champion is None:
        mlflow_registry.set_alias(version, "champion")
    if champion in (None, version):
        progress.echo("it is the champion: python pipelines/tag.py --catalog FOLDER tags with it")
        return
    uri = f"models:/{mlflow_registry.MODEL}/{version}"
    progress.echo(
        f"the champion is version {champion}; python pipelines/promote.py --model {uri} --force --reason TEXT "
        "puts this one in its place"
    )


def run_verify(args: argparse.Namespace) -> None:
    """`musictag verify`. Raises `LedgerError` at the end if something is wrong."""
    from musictag.jobs import maintenance  # here: deltalake takes half a second to import

    found = maintenance.verify(args.table, args.catalog)
    n_files = progress.counted(found.n_files, "file")
    for problem in found.problems:
        progress.echo(problem)
    if found.problems:
        problems = progress.counted(len(found.problems), "problem")
        raise LedgerError(f"table {args.table}: {problems} in {n_files}, see above")
    progress.echo(f"{n_files}, {progress.counted(found.n_rows, 'row')}, all as they were written; {args.table}")


def run_rollback(args: argparse.Namespace) -> None:
    """`musictag rollback`."""
    from musictag.jobs import maintenance

    if args.version is None:
        progress.echo("\n".join(maintenance.history(args.table, VERSIONS)))
        progress.echo(f"musictag rollback {args.table} VERSION makes the table what it was then")
        return
    maintenance.roll_back(args.table, args.version)
    progress.echo(f"what version {args.version} was is the newest version now; {args.table}")


def run_vacuum(args: argparse.Namespace) -> None:
    """`musictag vacuum`."""
    from musictag.jobs import maintenance

    removed = maintenance.vacuum(args.table, args.keep_hours)
    progress.echo(f"{progress.counted(len(removed), 'file')} removed; {args.table}")


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command and its options."""
    parser = argparse.ArgumentParser(
        prog="musictag", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument(
        "--model",
        default=pretrained.DEFAULT,
        help=f"{', '.join(pretrained.PUBLISHED)}, a model's folder or an MLflow uri (default: %(default)s)",
    )

    tag = commands.add_parser("tag", parents=[model], help="the tags of files, or of all music in folders")
    tag.add_argument("paths", type=Path, nargs="+", metavar="FILE_OR_FOLDER")
    tag.add_argument("--top", type=_count, default=5, metavar="N", help="tags per file (default: %(default)s)")
    tag.add_argument(
        "--clips-per-track", type=options.clips_per_track, default=CLIPS_PER_TRACK, metavar="N|all",
        help="clips of 3 s to listen to, evenly spread (default: %(default)s)",
    )  # fmt: skip
    form = tag.add_mutually_exclusive_group()
    form.add_argument("--csv", dest="form", action="store_const", const=output.as_csv, help=output.CSV_HEADER.strip())
    form.add_argument("--json", dest="form", action="store_const", const=output.as_json, help="one object a line")
    tag.set_defaults(run=run_tag, form=output.as_text)

    taggram = commands.add_parser("taggram", parents=[model], help="a picture of a file's scores over time")
    taggram.add_argument("path", type=Path, metavar="FILE")
    taggram.add_argument("-o", "--output", type=Path, required=True, metavar="PNG", help=f"{', '.join(PICTURES)}")
    taggram.add_argument("--top", type=_count, default=10, metavar="N", help="tags to show (default: %(default)s)")
    taggram.set_defaults(run=run_taggram)

    weights = commands.add_parser("weights", help="fetch the published models")
    weights.add_argument("wheel", type=Path, nargs="?", help=f"the wheel of {pretrained.PACKAGE}, if you have it")
    weights.set_defaults(run=run_weights)

    register = commands.add_parser("register", help="make a model a version of `musictag` in MLflow")
    register.add_argument("model", metavar="MODEL", help="as --model of `tag`")
    register.set_defaults(run=run_register)

    verify = commands.add_parser(
        "verify", help="see whether a table is whole: each file as it was written, each track once"
    )
    verify.add_argument(
        "--catalog", help="see as well whether the table or its failures hold each track of this catalog"
    )
    verify.set_defaults(run=run_verify)

    rollback = commands.add_parser("rollback", help="make a table what it was; without VERSION, list its versions")
    rollback.set_defaults(run=run_rollback)

    vacuum = commands.add_parser("vacuum", help="remove files that no version of the last days needs")
    vacuum.add_argument("--keep-hours", type=_hours, default=KEEP_HOURS, metavar="N", help="default: %(default)s")
    vacuum.set_defaults(run=run_vacuum)
    for command in (verify, rollback, vacuum):
        command.add_argument("table", metavar="TABLE", help="path or url, such as data/features")
    rollback.add_argument("version", type=int, nargs="?", metavar="VERSION")
    return parser.parse_args(argv)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1")
    return int(text)


def _hours(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return int(text)


def main(argv: list[str]) -> None:
    """Run one command."""
    args = parse(argv)
    args.run(args)


def entry(argv: list[str] | None = None) -> int:
    """What the shell calls: standard output is UTF-8 whatever the locale; returns the exit code."""
    if argv is None:
        _keep_stderr()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        return run_main(main, argv)
    except BrokenPipeError:  # whoever reads, `head` perhaps, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _keep_stderr() -> None:
    """Have standard error for Python alone: the MP3 decoder inside libsndfile writes there of every damaged file."""
    ours = os.dup(sys.stderr.fileno())
    sys.stderr = os.fdopen(ours, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
