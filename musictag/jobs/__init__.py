"""What every batch job shares, whatever the engine.

`run` is the life of a run: plan, process, reconcile. A job hands in the engine's step as a function. `plan` decides
what to process, `ledger` keeps the failures table and the account `listed = written + unchanged + failed`,
`featurizing` featurizes many tracks, `progress` prints messages and bars, `maintenance` verifies, rolls back and
vacuums tables, and `process` holds exit codes and the number of cores.
"""
