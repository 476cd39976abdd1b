"""Turn a features row into scores, and the scores into a tags row.

`scorers` scores clips and tracks with a model. `tagger` calibrates the scores and compares them with the thresholds.
`rows` makes the rows of the tags table, and `table` has its schema. `half_precision` scores in float16 on a GPU. `diff`
compares another model's tags on a sample.
"""
