"""Streaming evaluation: thresholds from val, every stream answered, metrics, baselines."""
