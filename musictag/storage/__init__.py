"""Files and Delta tables at any URL.

Other packages get from here: which URLs a catalog may name and how URLs are printed without secrets (`urls`), audio
files as local files with their etags (`fetch`), Delta tables that are created, read and cleaned (`tables`) and filled
part by part (`parts`), and the checksums of their files (`checksums`). `retry` repeats a call after a transient error,
and waits for a store that does not answer; `fetch` and `tables` decide which errors are transient, and `outages` which
stores do not answer. `text` escapes characters that would change a terminal. Rows are addressed by `track_id`; nothing
here knows the other columns.
"""
