"""Evaluate a model on the tracks of a split: per-tag precision, recall, F1, PR-AUC, ROC-AUC, calibration error.

python pipelines/evaluate.py
python pipelines/evaluate.py --model models:/musictag@champion --split test
python pipelines/evaluate.py --against models:/musictag@champion

The scores, the table and the charts are logged to the model's MLflow run, where promote.py finds them.
"""

import argparse
import sys
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from musictag.catalog import splits
from musictag.catalog.reader import Catalog, read_catalog
from musictag.catalog.vocabulary import targets_by_track, unknown_tags
from musictag.cli import options
from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import UsageError
from musictag.evaluation import calibration, charts, comparison, report, results
from musictag.features.reader import group_by_file, read_tracks
from musictag.features.table import feature_config
from musictag.jobs import progress
from musictag.jobs.entry_point import run_main
from musictag.jobs.labels import echo_problems, read_labels
from musictag.models.artifact_files import read_spec
from musictag.models.specs import check_features
from musictag.storage import tables
from musictag.tagging import scorers, tagger
from musictag.training import batches


def evaluate(
    source: mlflow_registry.ModelSource,
    features_uri: str,
    files: Mapping[str, Collection[str]],
    labels: splits.Labels,
    split: str,
) -> results.Evaluation:
    """Score the tracks of a split, which are in these files, with one model. Raises `UsageError` if there are none."""
    model = tagger.Tagger.load(source.folder)
    table = tables.open_table(features_uri)
    check_features(model.spec, feature_config(table).feature_hash)
    tags = labels.tags[split]
    if not tags:
        raise UsageError(
            f"no track of the {split} split has both tags and features ({labels}): featurize what is left out, or add "
            "tracks of other artists, since all tracks of an artist are in one split"
        )
    vocabulary = model.spec.vocabulary
    if unknown := unknown_tags(tags.values(), vocabulary):
        progress.echo(f"not evaluated, unknown to the model: {', '.join(f'{t} ({n})' for t, n in unknown.items())}")
    targets = targets_by_track(tags, vocabulary)
    rows = batches.labelled_rows(read_tracks(features_uri, scorers.SCORE_COLUMNS, files), targets)
    track_ids, truth, scores = scorers.score_labelled(model.model, rows, model.spec.feature_config)
    return results.Evaluation(
        split=split,
        track_ids=tuple(track_ids),
        groups=tuple(labels.groups[track_id] for track_id in track_ids),
        vocabulary=vocabulary,
        targets=truth,
        scores=calibration.calibrate(scores, model.spec.calibration),
        raw_scores=scores,
        thresholds=np.array(model.spec.thresholds),
    )


def log_evaluation(source: mlflow_registry.ModelSource, result: results.Evaluation) -> None:
    """Log an evaluation to the model's MLflow run, if it has one: a model in a folder has none."""
    if source.run_id is None:
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pq.write_table(results.to_table(result), folder / results.SCORES_FILE)
        pq.write_table(results.per_tag(result), folder / "per_tag.parquet")
        (folder / "report.txt").write_text(report.evaluation_report(result) + "\n", encoding="utf-8")
        charts.save_figure(charts.precision_recall_chart(result), folder / "precision_recall.png")
        charts.save_figure(charts.curves_chart(result), folder / "curves.png")
        mlflow_runs.log_evaluation(source.run_id, result.split, folder, results.summary(result))


def compare(
    source: mlflow_registry.ModelSource,
    result: results.Evaluation,
    other_source: mlflow_registry.ModelSource,
    other: results.Evaluation,
) -> str:
    """Compare two models; return the result as text, and log table and chart to the first model's run.

    The files are named after the second model, so that several comparisons do not overwrite each other.
    """
    names = source.uri, other_source.uri
    table = comparison.compare(result, other)
    text = report.comparison(table, names)
    if source.run_id is not None:
        with tempfile.TemporaryDirectory() as temporary:
            files = Path(temporary) / f"comparison-{mlflow_registry.file_name(other_source)}"
            pq.write_table(table, f"{files}.parquet")
            Path(f"{files}.txt").write_text(text + "\n", encoding="utf-8")
            charts.save_figure(charts.comparison_chart(result, other, names), Path(f"{files}.png"))
            mlflow_runs.log_evaluation(source.run_id, result.split, Path(temporary), {})
    return text


def titles(catalog: Catalog, track_ids: Sequence[str]) -> dict[str, str]:
    """Return the artist and title of some tracks, by track_id."""
    is_wanted = pc.is_in(catalog.tracks["track_id"], pa.array(track_ids, pa.string()))
    rows = catalog.tracks.select(["track_id", "title", "artist"]).filter(is_wanted).to_pylist()
    return {row["track_id"]: " \u2013 ".join(filter(None, (row["artist"], row["title"]))) for row in rows}


def parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", default=mlflow_registry.CANDIDATE, help="registered model, run or folder (default: %(default)s)"
    )
    options.add_labels(parser)
    parser.add_argument(
        "--split", default="test", choices=splits.SPLITS, help="tracks to evaluate on (default: %(default)s)"
    )
    parser.add_argument("--against", metavar="MODEL", help="second model to compare with, on the same tracks")
    return parser.parse_args(argv)


def main(argv: list[str]) -> None:
    """Evaluate one or two models; print and log the results."""
    args = parse(argv)
    mlflow_runs.connect()
    source = mlflow_registry.fetch(args.model)
    catalog = read_catalog(args.catalog, columns=(*splits.LABEL_COLUMNS, "title"))
    echo_problems(catalog, merge_tag_case=args.merge_tag_case)
    spelling = read_spec(source.folder).vocabulary if args.merge_tag_case else None
    version = tables.version(args.features)
    labels = read_labels(catalog, args.features, version, merge_tag_case=spelling)
    progress.echo(str(labels))
    of_split = {track_id: labels.file_by_track[track_id] for track_id in labels.tags[args.split]}
    files = group_by_file(args.features, version, of_split)
    result = evaluate(source, args.features, files, labels, args.split)
    log_evaluation(source, result)
    progress.echo(report.examples(result, titles(catalog, result.track_ids)) + "\n")
    progress.echo(report.evaluation_report(result))
    if args.against:
        other_source = mlflow_registry.fetch(args.against)
        other = evaluate(other_source, args.features, files, labels, args.split)
        log_evaluation(other_source, other)
        progress.echo("\n" + compare(source, result, other_source, other))
    figures = results.summary(result)
    progress.echo(
        f"{source.uri}: macro PR-AUC {figures['macro_pr_auc']:.3f}, ROC-AUC {figures['macro_roc_auc']:.3f}, "
        f"F1 {figures['macro_f1']:.3f}, calibration error {figures['micro_ece']:.3f} "
        f"on {len(result.track_ids)} {args.split} tracks"
        + (f"; table and charts are in MLflow run {source.run_id}" if source.run_id else "")
    )


if __name__ == "__main__":
    sys.exit(run_main(main))
