"""Scores and truth become figures and a decision.

`metrics` are pure functions, `bootstrap` adds intervals, `results` is the evaluation of one model, `comparison`
compares two, and `gate` decides whether a candidate may become champion: a new promotion rule belongs there.
`report`, `experiment_report` and `charts` show results to a person.
"""
