"""The home of each engine: nothing else in the library imports Beam, Ray or MLflow.

`beam_runner` and `ray_cluster` start an engine, watch it and pass on its errors. `mlflow_runs` logs runs,
`mlflow_registry` holds models, versions and aliases; another registry would be a module beside it. `child_process` runs
a command that ends with its parent. The jobs themselves are the scripts in `pipelines/`.
"""
