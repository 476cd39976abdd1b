"""The commands that fetch and register models: `musictag weights` and `musictag register`."""

import argparse
from pathlib import Path

from musictag.errors import UsageError
from musictag.jobs import progress
from musictag.models.published import pretrained


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add the option `--model`."""
    parser.add_argument(
        "--model",
        default=pretrained.DEFAULT,
        help=f"{', '.join(pretrained.PUBLISHED)}, a model's folder or an MLflow URI (default: %(default)s)",
    )


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `weights` and `register` to the commands of a parser."""
    weights = commands.add_parser("weights", help="fetch the published models")
    weights.add_argument("wheel", type=Path, nargs="?", help=f"the wheel of {pretrained.PACKAGE}, if you have it")
    weights.set_defaults(run=run_weights)

    register = commands.add_parser("register", help="make a model a version of `musictag` in MLflow")
    register.add_argument("model", metavar="MODEL", help="published model, model folder or MLflow URI")
    register.set_defaults(run=run_register)


def find_model(name: str) -> Path:
    """Return the artifact folder of a model, given the name of a published one, an MLflow URI or a folder.

    Raises:
        UsageError: it is none of these.
        ModelError, RegistryError: see `pretrained.find` and `mlflow_registry.fetch`.
    """
    if name in pretrained.PUBLISHED:
        return pretrained.find(name)
    if name.startswith(("models:/", "runs:/")):
        from musictag.engines import mlflow_registry, mlflow_runs  # here: MLflow takes seconds to import

        mlflow_runs.connect()
        return mlflow_registry.fetch(name).folder
    if not Path(name).is_dir():
        raise UsageError(
            f"there is no model {name!r}: name {', '.join(pretrained.PUBLISHED)}, a model's folder, "
            "or an MLflow URI such as models:/musictag@champion (models:/..., runs:/...)"
        )
    return Path(name)


def run_weights(args: argparse.Namespace) -> None:
    """Fetch the published models."""
    from musictag.models.published import conversion  # here: torch takes a second to import

    folders = conversion.install(args.wheel)
    progress.echo(f"{len(folders)} models ({', '.join(folder.name for folder in folders)}); {folders[0].parent}")


def run_register(args: argparse.Namespace) -> None:
    """Register a model. The first one becomes the champion; later ones do not replace it."""
    from musictag.engines import mlflow_registry, mlflow_runs  # here: MLflow takes seconds to import

    mlflow_runs.connect()
    version = mlflow_registry.register_any(mlflow_registry.fetch(args.model))
    progress.echo(f"{args.model} is version {version} of {mlflow_registry.MODEL}")
    champion = mlflow_registry.alias_version("champion")
    if champion is None:
        mlflow_registry.set_alias(version, "champion")
    if champion in (None, version):
        progress.echo("it is the champion: python pipelines/tag.py --catalog FOLDER tags with it")
        return
    uri = f"models:/{mlflow_registry.MODEL}/{version}"
    progress.echo(
        f"the champion is version {champion}; to replace it with this one: "
        f"python pipelines/promote.py --model {uri} --force --reason TEXT"
    )
