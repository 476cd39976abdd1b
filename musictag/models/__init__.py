"""Networks, classical models, and the artifact that stores them.

`architectures` builds a model by its name. The networks are `cnn`, `resnet`, `vgg`, `musicnn` and `three_path`, whose
paths are `timbre`, `rhythm` and `pitch`; `layers` has what they share, and `ensemble` joins several networks.
`classical` has the classical methods. `specs` describes a model without its weights. `artifact` reads and writes a
model folder (`weights.safetensors`, `tagger.json`) without running code, and `artifact_files` reads what needs no
torch. `embedding_cache` stores the outputs of frozen layers. `published` converts the weights of the PyPI package
musicnn for our modules `musicnn` and `vgg`.
"""
