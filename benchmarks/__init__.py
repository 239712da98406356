"""Speeds measured side by side: ours and a baseline, in one process, on the same weights."""
