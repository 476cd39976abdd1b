"""Decode an audio file to a mono waveform.

Other packages use `reader`: it opens a file with the decoder for its format, checks it, and yields resampled blocks or
an excerpt. `libsndfile`, `ffmpeg`, `mpg123` and `vorbis` decode with one library each, in blocks as `pcm` defines them;
`decoders` chooses the fastest one for formats that libsndfile knows. `mp3` and `ogg_pages` parse the frames or pages of
a format. `integrity` checks that a file is as long as its container declares. A new container needs a check in
`integrity`, an entry in `ffmpeg.CONTAINERS` if FFmpeg decodes it, and its suffix in `catalog.folder.AUDIO_SUFFIXES`.
"""
