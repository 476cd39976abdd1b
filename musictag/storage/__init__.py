"""Bytes and Delta tables at any URL.

Other rooms get from here: which URLs a catalog may name and how URLs are printed without secrets (`urls`), audio
files as local files with their etags (`fetch`), Delta tables that are created, read and cleaned (`tables`) and filled
part by part (`parts`), the checksums of their files (`checksums`), and retries of transient errors (`retry`). Nothing
here knows what a track is.
"""
