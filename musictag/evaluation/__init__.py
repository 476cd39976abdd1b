"""Evaluate models: compute metrics from scores and targets, compare models, and decide on promotion.

`metrics` are pure functions, `bootstrap` adds intervals, `calibration` fits and applies calibration and thresholds.
`results` is the evaluation of one model, `comparison` compares two, and `gate` decides whether a candidate may become
champion: a new promotion rule belongs there. `report` and `experiment_report` write the results as text, and `charts`
draws them.
"""
