"""Sweeps at the edge: a search that can be stopped and gone on with, and what its jobs do once."""
