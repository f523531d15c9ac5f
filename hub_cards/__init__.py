"""Everything that a Hub repository shows besides its weights."""
