"""The parts that all batch jobs share, independent of the engine.

`run` executes a run from its plan to its account; a job passes to it the function that processes the tasks. `plan`
decides which tracks to process, `plan_files` writes their tasks for the workers, and `sharing` detects two catalogs
with one table. Workers process `shards` of the tasks: `featurizing` decodes them, `copy_sources` finds rows to copy.
`output` names what a run writes, `committer` commits the `staged_parts` of the workers while they work, and
`obsolete_rows` removes what is replaced. `ledger` keeps the failures table and the account
`listed = written + unchanged + failed`; `cost` is the computing time. `labels` and `near_duplicates` serve the jobs
that learn. `maintenance` verifies (by `row_checks`), restores, joins and vacuums tables. `progress` prints messages and
progress bars, and `entry_point` turns errors into exit codes and counts cores.
"""
