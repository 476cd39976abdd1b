"""Decode an audio file to a mono waveform.

Other packages use `reader`: it opens a file with the decoder for its format, checks it, and yields resampled blocks or
an excerpt. `libsndfile`, `ffmpeg`, `mpg123` and `vorbis` decode with one library each, in blocks as `pcm` defines them;
`decoders` chooses the fastest one for formats that libsndfile knows, and `chained_ogg` decodes Ogg files with several
streams. `mixing` makes one channel of several, and `resampling` changes the sample rate. `mp3` with `mpeg_headers`,
`adts`, `flac`, `ogg_pages` and `chunks` parse the frames, pages, chunks and boxes of formats. `integrity` checks that a
file is as long as its container declares, `trailing` what follows, and `bitstreams` that the samples are no encoded
stream.

If a decoder reports damage, `damaged` decodes the rest of the file: `mp3_parts`, `mp4_parts`, `matroska_parts`, `adts`,
`flac_parts`, `ogg_parts` and `wavpack_parts` find the undamaged `parts`, and `ffmpeg_damage` continues after packets
that cannot be decoded.

A new container needs a check in `integrity`, an entry in `ffmpeg.CONTAINERS` if FFmpeg decodes it, and its suffix in
`catalog.folder.AUDIO_SUFFIXES`.
"""
