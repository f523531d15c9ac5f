"""What is kept of a run, so that it goes on as if it had not stopped."""
