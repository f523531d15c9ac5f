"""From checked rows to batches: pairs, augmented views, cached towers, columns of teachers."""
