"""Is it written whole, by one writer, and what was left out."""
