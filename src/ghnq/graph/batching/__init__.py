"""Many graphs as one, and the traversals over them."""
