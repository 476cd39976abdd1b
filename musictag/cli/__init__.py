"""The command `musictag`, and the options that scripts share.

`main` holds the commands, `options` the options of all scripts, `training_options` those of training. `local_files`
finds and decodes files of this machine, `output` prints tags as text, CSV or JSON, and `taggram` draws scores over
time.
"""
