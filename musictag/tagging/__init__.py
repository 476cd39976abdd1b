"""A features row becomes scores, and the scores become a tags row.

`tagger` joins and calibrates the scores of a track's clips and compares them with thresholds. `table` is the schema
of the tags table: a new column belongs there. `diff` computes on a sample what another model would change.
"""
