"""Generated worlds, and the whole job on them from nothing."""
