"""A training run: recipe, loop, state, log."""
