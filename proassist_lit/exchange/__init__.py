"""Assistants in and out: folders of Hugging Face's layout, and those of the reference systems."""
