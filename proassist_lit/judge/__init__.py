"""A language model judges dialogues: a client of any OpenAI-compatible server, not a metric."""
