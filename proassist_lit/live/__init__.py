"""A trained assistant at work: it watches a video, and what it said becomes files."""
