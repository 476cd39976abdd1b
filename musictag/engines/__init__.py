"""Start and monitor Beam and Ray, and talk to MLflow; only this package and the scripts in `pipelines/` import them.

`beam_runner` and `ray_cluster` start an engine, monitor it and pass on its errors; `ray_scoring` scores tracks on Ray,
and `ray_training` runs the workers of Ray Train. `mlflow_runs` logs runs, and `mlflow_registry` holds models, versions
and aliases. Another registry would be another module, which the scripts import instead. `beam_workers` are the
processes of Beam's local runner, and `beam_cluster` waits for a pipeline elsewhere. `child_process` runs a command that
ends with its parent. A Beam runner such as Spark needs no code: it is an option of featurize.py. A job on another
engine is a script in `pipelines/`, with a module here that starts the engine.
"""
