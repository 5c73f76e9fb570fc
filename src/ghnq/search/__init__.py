"""Many networks: candidates, what they cost, what predicts their accuracy, and how they are ranked by it."""
