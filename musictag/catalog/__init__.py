"""Catalogs: tracks, their tags, and their splits.

A catalog is a CSV, JSON Lines or Parquet file, or a folder of music. `reader` returns tables of its usable rows and of
its problems: `formats` reads files and `folder` lists folders, in batches of `rows`; `validation` checks them, by
`column_rules` and `row_rules`, finds `repeated_ids` and resolves `places`. `vocabulary` turns tag lists into multi-hot
targets, `splits` assigns artists to train, validation and test (by `stratification`) and stores the assignment; `twins`
finds tracks with the same audio, by digests that `matching` finds in a features table.
"""
