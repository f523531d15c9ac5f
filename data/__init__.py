"""From a source (folder, parquet, Hub dataset, annotation file) to checked rows."""
