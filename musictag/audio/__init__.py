"""Decode an audio file to a mono waveform.

Other rooms use `reader`: it opens a file, checks it, and yields resampled blocks or an excerpt. `decoders` chooses the
fastest decoder for the format. `libsndfile`, `ffmpeg`, `mpg123` and `vorbis` decode; `mp3` and `ogg_pages` parse
the frames or pages of a format. `integrity` checks that a file is as long as its container declares. To support a new
container, start in `integrity` and `decoders`.
"""
