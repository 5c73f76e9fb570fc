"""What is asked of one network: sensitivity of its layers, mixed precision."""
