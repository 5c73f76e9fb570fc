"""What each command of `ghnq.cli` does; imported when the command is called, as it loads torch and the like."""
