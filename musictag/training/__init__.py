"""Batches become a model.

`batches` draws clips from features rows, `augment` changes them, `losses` compares logits with targets, `loop` trains
one network without any engine. `config` and `recipes` are the settings, `finetune` is where training starts,
`baselines` fits the classical methods. A new loss belongs in `losses`.
"""
