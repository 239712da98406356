"""The study behind ``docs/results.md``: what the framework learns, beside what the paper found."""
