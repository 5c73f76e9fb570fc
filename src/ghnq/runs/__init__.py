"""What every training run has, whatever it trains: processes, signals, a lock, states, a log."""
