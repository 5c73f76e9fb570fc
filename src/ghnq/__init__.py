"""Predict quantization-robust weights for convolutional networks nobody has trained yet."""

__version__ = "0.1.0"
