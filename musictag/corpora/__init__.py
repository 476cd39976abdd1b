"""Catalogs that we make to try musictag on.

`demo` and `experiment` render folk tunes and label them by what is known of each; `emotify` reads a published data
set.
"""
