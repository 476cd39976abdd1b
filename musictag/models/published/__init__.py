"""The published musicnn and VGG models, converted from the wheel of the package `musicnn` without TensorFlow.

`pretrained` finds them, `conversion` installs them, `tf_checkpoint` reads TensorFlow checkpoints, `pruning` removes
filters whose output is constant.
"""
