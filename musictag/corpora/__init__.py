"""Make catalogs to try musictag on.

`demo` and `experiment` render folk tunes to audio and label every song by known rules. `emotify` reads a published
data set. Each of the three writes a `catalog.csv` and returns its path.
"""
