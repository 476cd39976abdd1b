"""Commands of infra/README.md that cannot be run here."""

import shlex
from pathlib import Path

import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

README = Path(__file__).parents[2] / "infra/README.md"


@pytest.mark.slow
@pytest.mark.parametrize("runner", ["FlinkRunner", "DataflowRunner"])
def test_beam_knows_the_options_of_a_runner(runner: str, script) -> None:
    (line,) = (line for line in README.read_text().splitlines() if f"--runner={runner} " in line)
    _, path, *arguments = shlex.split(line)
    assert path == "pipelines/featurize.py"
    _, for_beam = script("featurize").parse(arguments)
    options = PipelineOptions(for_beam)
    assert options.view_as(StandardOptions).runner == runner
    known = options.get_all_options()
    assert options.get_all_options(retain_unknown_options=True) == known
    for argument in for_beam:
        assert argument.partition("=")[0].removeprefix("--") in known
