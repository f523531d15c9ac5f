"""Embeddings to losses to weights."""
