"""What a deployed network costs: multiply-adds, memory, latency."""
