"""Which settings a run takes, from recipes and the command line, and which it refuses."""
