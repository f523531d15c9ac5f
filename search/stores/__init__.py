"""Indexes that lie in a vector database: LanceDB and Qdrant."""
