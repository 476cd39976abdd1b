"""A waveform becomes clips, and the clips of one track become a row of the features table.

`config` holds the settings of the front end and their hash, `log_mel` computes spectrograms, `clips` places clips in
a track, `extract` makes the row of one track, and `table` is the schema of the features table. `decoder_process`
decodes in a child process, which may crash. `descriptors` summarizes whole tracks for the classical methods.
"""
