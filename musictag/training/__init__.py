"""Train models: from batches of clips and targets to weights, without an engine.

`batches` draws clips from feature rows, `augment` changes them, `losses` compares logits with targets, `loop` trains
one network. `config` and `recipes` hold the settings, `finetune` prepares the network to train, `dataset` reads the
labelled tracks of a features table. `baselines` fits the classical methods.
"""
