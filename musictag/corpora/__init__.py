"""Make catalogs to try musictag on.

`demo`, `experiment` and `emotify` each write a `catalog.csv` and return its path. `emotify` reads a published data set.
The other two render folk tunes: `essen`, `variants` and `melody` read and describe the tunes, `performance_style` draws
how to play one, `band` arranges it with `accompaniment` and `drumming`, `arrangement` defines the notes, `rendering`
makes sound of them, `labels` assigns tags by known rules, and `songs` writes the files.
"""
