"""Networks, classical models, and the artifact that stores them.

`architectures` lists the models by name; each has a module of its own. `artifact` reads and writes a model folder
(`weights.safetensors`, `tagger.json`) without running code. `embedding_cache` remembers the outputs of frozen layers.
`published` reads the musicnn models out of their package.
"""
