"""Lightning at the edge: the only part that knows the Trainer."""
