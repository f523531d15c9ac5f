"""Several processes in one run: shards, a common start of each step, workers that load."""
