"""The networks of a training step: which architectures, on which images, at which precision."""
