"""Start and watch Beam, Ray and MLflow; apart from the scripts in `pipelines/`, only this room imports them.

`beam_runner` and `ray_cluster` start an engine, watch it and pass on its errors. `mlflow_runs` logs runs,
`mlflow_registry` holds models, versions and aliases; another registry would be another
module, chosen by the scripts. `child_process` runs
a command that ends with its parent. A job is a script in `pipelines/`; a runner of Beam is an
option of its script, and another engine is a module here and a script of its own.
"""
