"""The processes of a run: where they run, how they are started, what they exchange."""
