"""Catalogs: tracks, their tags, and their splits.

A catalog is a CSV, JSON Lines or Parquet file, or a folder of music. `reader` returns its usable rows and its
problems: `formats` reads files, `folder` lists folders, `validation` checks the rows. `vocabulary` turns tag
lists into multi-hot targets, `splits` assigns artists to train, validation and test (by `stratification`) and stores
the assignment; `twins` finds tracks with the same audio.
"""
