"""The published musicnn and VGG models, read out of the wheel of the package `musicnn` without TensorFlow.

`pretrained` finds and installs them, `tf_checkpoint` reads TensorFlow's checkpoints, `pruning` removes filters that
are always zero.
"""
