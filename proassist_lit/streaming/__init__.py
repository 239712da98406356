"""Streaming: watch frame by frame with one cache, decide at every frame, speak and update."""
