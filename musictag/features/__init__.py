"""Compute the features of a track: its clips of log-mel spectrogram, in one row of the features table.

`config` holds the settings of the front end and their hash, `log_mel` computes spectrograms, `clips` places and cuts
clips, `extract` makes the row of one track within `limits`, and `table` defines the features table. `decoder_process`
decodes in a child process (`decoder_child`), so that a crash costs one track only, and `track_errors` does so for
errors. `reader` reads tracks from the files that hold them. `descriptors` summarizes whole tracks for the classical
methods, and `similarity` finds tracks that sound nearly the same.
"""
