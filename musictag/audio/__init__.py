"""An audio file becomes a mono waveform.

Other rooms use `reader`: it opens a file, checks it and yields resampled blocks, or an excerpt. `decoders` chooses
the fastest decoder for the format; `ffmpeg`, `mpg123` and the modules named after formats decode or find their way in
them. `integrity` checks that a container holds what it declares. A new container begins in `integrity` and
`decoders`.
"""
