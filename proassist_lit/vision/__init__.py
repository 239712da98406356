"""From pictures to the features that the projector reads."""
