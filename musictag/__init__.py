"""musictag: expert tags on every track of a catalog, from audio to a tagged table."""

__version__ = "0.1.0"
