"""The parts that all batch jobs share, independent of the engine.

`run` executes a run: plan, process, reconcile. A job passes the engine's step to it as a function. `plan` decides which
tracks to process, and `ledger` keeps the failures table and the account `listed = written + unchanged + failed`.
`featurizing` featurizes many tracks, `labels` reads the labels of a catalog, `progress` prints messages and progress
bars, `maintenance` verifies, restores and vacuums tables, and `process` holds exit codes and the number of cores.
"""
