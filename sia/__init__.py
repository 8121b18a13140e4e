"""Speech-image semantic alignment without any prior classification task, at the scale of a cluster."""

__version__ = "0.1.0"
