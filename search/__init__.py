"""An index of pictures: build it, refresh it, search it, export it."""
