"""Decode an audio file to a mono waveform.

Other rooms use `reader`: it opens a file, checks it, and yields resampled blocks or an excerpt. `decoders` chooses the
fastest decoder for the format. `libsndfile`, `ffmpeg`, `mpg123` and `vorbis` decode by one library each, and yield
blocks as `pcm` defines them; `mp3` and `ogg_pages` parse the frames or pages of a format. `integrity` checks that a
file is as long as its container declares. A new container is added to `integrity` and `decoders`, and its suffix to
`catalog.reader`, which lists the files of a folder.
"""
