"""The command `musictag`, and the options that scripts share.

`main` has the command line; `file_commands`, `model_commands` and `table_commands` have its commands. `options` has the
defaults, parsers and options that several scripts share, and `training_options` those of training. `local_files` finds
and decodes files of this machine, `output` prints tags as text, CSV or JSON, and `taggram` draws the scores of a track.
"""
