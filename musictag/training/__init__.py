"""Train models: from batches of clips and targets to weights, without an engine.

`dataset` turns labels into the folds and the vocabulary to train on, `batches` draws clips from feature rows, `augment`
changes them, `loader` draws them ahead for a GPU, `losses` compares logits with targets (a new loss belongs there;
`pipelines/train.py` passes it to `loop.fit`). `loop` trains one network, `folds` one for each fold, `distributed` is
what several workers exchange, `checkpoints` saves and loads the state of training. `config` and `recipes` hold the
settings, `finetune` prepares the network to train. `baselines` fits the classical methods.
"""
