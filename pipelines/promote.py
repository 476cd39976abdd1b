"""Promote a model to champion if it is better than today's on the same test tracks.

python pipelines/promote.py
python pipelines/promote.py --model runs:/RUN_ID/model
python pipelines/promote.py --force --reason "new vocabulary, agreed with the editors"

Exit 1 says that the gate refused it, and why. Both models must have been evaluated (`pipelines/evaluate.py`).
"""

import argparse
import sys

import pyarrow.parquet as pq

from musictag import cli, console, evaluation, registry
from musictag.errors import PromotionError, UsageError
from musictag.promotion import Decision, decide


def judge(source: registry.ModelSource, champion: str | None) -> Decision:
    """Compare the test evaluations that MLflow keeps of the model and of the version that is champion."""
    candidate = _evaluation(source)
    if champion is None:
        return decide(candidate, None)
    return decide(candidate, _evaluation(registry.fetch(f"models:/{registry.MODEL}/{champion}")))


def _evaluation(source: registry.ModelSource) -> evaluation.Evaluation:
    found = registry.evaluation_file(source.run_id, "test", evaluation.SCORES_FILE) if source.run_id else None
    if found is None:
        raise PromotionError(
            f"{source.uri} has no evaluation on the test split: run `python pipelines/evaluate.py --model {source.uri}`"
        )
    return evaluation.from_table(pq.read_table(found))


def parse(argv: list[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=cli.CANDIDATE, help="default: %(default)s")
    parser.add_argument("--alias", default="champion", help="what to move (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="move it whatever the figures say; needs --reason")
    parser.add_argument("--reason", default="", metavar="TEXT", help="kept with the version")
    args = parser.parse_args(argv)
    if args.force and not args.reason.strip():
        raise UsageError("--force needs --reason TEXT: it is kept with the version, for whoever asks later")
    return args


def main(argv: list[str]) -> None:
    """Decide, say why, and move the alias or not."""
    args = parse(argv)
    registry.connect()
    source = registry.fetch(args.model)
    version = registry.register(source)
    champion = registry.alias_version(args.alias)
    if champion == version:
        console.say(f"version {version} is the {args.alias} already")
        return
    reason = f"forced: {args.reason.strip()}"
    if not args.force:
        decision = judge(source, champion)
        reason = decision.reason
        if not decision.promote:
            registry.tag_version(version, {"decision": reason})
            raise PromotionError(f"version {version} was {reason}; to promote it all the same: --force --reason TEXT")
    registry.tag_version(version, {"decision": reason, "replaced": champion or "none"})
    registry.set_alias(version, args.alias)
    console.say(f"version {version} is the {args.alias}: {reason}")


if __name__ == "__main__":
    sys.exit(cli.run(main))
