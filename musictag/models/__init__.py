"""Networks, classical models, and the artifact that stores them.

`architectures` builds a model by its name; each network has its own module. `specs` describes a model without its
weights. `artifact` reads and writes a model folder (`weights.safetensors`, `tagger.json`) without running code.
`embedding_cache` stores the outputs of frozen layers. `timbre`, `rhythm` and `pitch` are the paths of the network
`three_path`. `published` converts the weights of the PyPI package musicnn for our modules `musicnn` and `vgg`.
"""
