"""Backbone, projector and heads. A batch in, hidden states and logits out; no loss."""
