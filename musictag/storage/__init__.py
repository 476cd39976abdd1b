"""Files and Delta tables at any URL.

Other packages get from here: which URLs a catalog may name and how URLs are printed without secrets (`urls`), audio
files as local files (`fetch`) with their etags (`etags`), and Delta tables: `tables` creates and reads them,
`data_files` writes their files, `commits` adds files to them, `rewrite` removes rows and joins small files, `checksums`
records the digests of files, and `queries` answers questions about all tracks. `staging` holds what workers have
written and the driver of their run has not committed, and `heartbeats` tell which runs are running. `stores` makes the
clients of a URL, and `folders` opens the folder of a table. `repeating` repeats an action in a thread. `retry` repeats
a call after a transient error, and waits for a store that does not answer; `fetch` and `tables` decide which errors are
transient, and `outages` which stores do not answer. `text` escapes characters that would change a terminal. Rows are
addressed by `track_id`; nothing here knows the other columns.
"""
