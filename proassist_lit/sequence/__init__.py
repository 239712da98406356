"""From a conversation to tokens, labels and masks; the same for training and streaming."""
