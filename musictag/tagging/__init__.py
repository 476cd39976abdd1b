"""Turn a features row into scores, and the scores into a tags row.

`scorers` scores clips and tracks with a model. `tagger` calibrates the scores and compares them with the thresholds.
`table` has the schema of the tags table; add new columns there. `diff` compares another model's tags on a sample.
"""
