"""Promote a model to champion if it is better than the champion on the same test tracks, and no tag is clearly worse.

python pipelines/promote.py
python pipelines/promote.py --model runs:/RUN_ID/model
python pipelines/promote.py --force --reason "new vocabulary, agreed with the editors"
python pipelines/promote.py --rollback

The exit code is 1 if the gate refuses the model; the message says why. Both models must have been evaluated
(`pipelines/evaluate.py`), except with --force. The decision, its figures and a chart are logged to the model's MLflow
run.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from musictag.engines import mlflow_registry, mlflow_runs
from musictag.errors import MusictagError, PromotionError, UsageError
from musictag.evaluation import charts, gate, results
from musictag.jobs import progress
from musictag.jobs.entry_point import run_main


def judge(source: mlflow_registry.ModelSource, champion: str | None, folder: Path) -> gate.Decision:
    """Compare the logged test evaluations of a model and of the champion; save a chart in `folder`."""
    candidate = evaluated(source)
    if champion is None:
        return gate.decide(candidate, None)
    other_source = mlflow_registry.fetch(f"models:/{mlflow_registry.MODEL}/{champion}")
    other = evaluated(other_source)
    decision = gate.decide(candidate, other)
    chart = charts.comparison_chart(candidate, other, (source.uri, other_source.uri))
    charts.save_figure(chart, folder / "comparison.png")
    return decision


def force(source: mlflow_registry.ModelSource, champion: str | None, folder: Path, because: str) -> gate.Decision:
    """Promote without the gate; an error that prevents the comparison becomes part of the decision."""
    try:
        return gate.force(because, judge(source, champion, folder))
    except MusictagError as hindrance:
        return gate.force_unjudged(because, str(hindrance))


def evaluated(source: mlflow_registry.ModelSource) -> results.Evaluation:
    """Return the logged evaluation of a model on the test split."""
    found = mlflow_runs.evaluation_file(source.run_id, "test", results.SCORES_FILE) if source.run_id else None
    if found is None:
        raise PromotionError(
            f"{source.uri} has no evaluation on the test split: run `python pipelines/evaluate.py --model {source.uri}`"
        )
    return results.read(found, source.uri)


def roll_back(alias: str, reason: str) -> None:
    """Set the alias to its previous version."""
    left, version = mlflow_registry.roll_back(alias)
    suffix = f": {reason}" if reason else ""
    mlflow_registry.tag_version(left, {"decision": f"rolled back to version {version}{suffix}"})
    progress.echo(f"version {version} is the {alias} again, instead of version {left}{suffix}")


def parse(argv: list[str]) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help=f"default: {mlflow_registry.CANDIDATE}")
    parser.add_argument("--alias", default="champion", help="alias to set (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="promote without the gate; needs --reason")
    parser.add_argument("--rollback", action="store_true", help="return to the previous version")
    parser.add_argument("--reason", default="", metavar="TEXT", help="stored with the version")
    args = parser.parse_args(argv)
    args.reason = args.reason.strip()
    if args.rollback and (args.model or args.force):
        raise UsageError(
            "--rollback cannot be combined with --model or --force, because it returns to the replaced version; "
            "to choose a version: --model models:/musictag/VERSION --force --reason TEXT"
        )
    if args.force and not args.reason:
        raise UsageError("--force needs --reason TEXT, which is stored with the version")
    return args


def main(argv: list[str]) -> None:
    """Decide, print the reason, and set the alias or not."""
    args = parse(argv)
    mlflow_runs.connect()
    if args.rollback:
        roll_back(args.alias, args.reason)
        return
    source = mlflow_registry.fetch(args.model or mlflow_registry.CANDIDATE)
    version = mlflow_registry.register(source)
    champion = mlflow_registry.alias_version(args.alias)
    if champion == version:
        progress.echo(f"version {version} is the {args.alias} already")
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        decision = force(source, champion, folder, args.reason) if args.force else judge(source, champion, folder)
        (folder / "decision.json").write_text(gate.to_json(decision) + "\n", encoding="utf-8")
        if source.run_id is not None:
            mlflow_runs.log_decision(source.run_id, folder, gate.numbers(decision))
    if not decision.promote:
        mlflow_registry.tag_version(version, {"decision": decision.reason})
        raise PromotionError(
            f"version {version} was {decision.reason}; to promote it without the gate: --force --reason TEXT"
        )
    mlflow_registry.tag_version(version, {"decision": decision.reason, "replaced": champion or "none"})
    mlflow_registry.promote(version, args.alias)
    progress.echo(f"version {version} is the {args.alias}: {decision.reason}")


if __name__ == "__main__":
    sys.exit(run_main(main))
