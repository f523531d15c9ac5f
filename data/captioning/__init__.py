"""Dense captions from vision-language models, local or behind a server."""
