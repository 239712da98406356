"""Timelines, conversation records, features and the data sets that hold them."""
