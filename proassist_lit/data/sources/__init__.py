"""Readers of the data sets: each makes conversations or timelines of files in their own layout."""
