"""Train models: from batches of clips and targets to weights, without an engine.

`dataset` turns labels into the folds and the vocabulary to train on, `batches` draws clips from feature rows, `augment`
changes them, `losses` compares logits with targets (a new loss belongs there; `pipelines/train.py` passes it to
`loop.fit`). `loop` trains one network, `folds` several and their mean, `checkpoints` saves and loads the state of
training. `config` and `recipes` hold the settings, `finetune` prepares the network to train. `baselines` fits the
classical methods.
"""
