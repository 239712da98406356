"""Pages, curves and tables: what a run looked like, for a person to read."""
