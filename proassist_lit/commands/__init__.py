"""The ``proassist-lit`` command: look at data and at runs, and evaluate them."""
