"""What each command of `ghnq.cli` does; a module is imported when its command is called, since it loads torch."""
