"""What a model did, as a picture."""
