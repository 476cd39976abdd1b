"""Networks, classical models, and the artifact that stores them.

`architectures` builds a model by its name; each network has its own module. `specs` describes a model without its
weights. `artifact` reads and writes a model folder (`weights.safetensors`, `tagger.json`) without running code.
`embedding_cache` stores the outputs of frozen layers. `published` converts the models of the package musicnn.
"""
