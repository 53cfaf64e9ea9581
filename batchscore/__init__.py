"""Score files of texts with a saved classifier, every night, without anyone watching."""

__version__ = "0.2.0"
