"""Metrics read transcripts; they know no model and no trainer."""
