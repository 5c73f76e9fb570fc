"""The graph of a network to be deployed: captured, decomposed into supported operators, quantizers placed."""
