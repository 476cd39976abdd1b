"""The parts that all batch jobs share, independent of the engine.

`run` executes a run from its plan to its account; a job passes to it the function that processes the tasks. `plan`
decides which tracks to process, and `ledger` keeps the failures table and the account `listed = written + unchanged +
failed`. `featurizing` featurizes many tracks, `labels` reads the tags and splits of the tracks that have features,
`sharing` detects two catalogs with one table, `progress` prints messages and progress bars, `maintenance` verifies,
restores and vacuums tables, and `entry_point` turns errors into exit codes and counts cores.
"""
