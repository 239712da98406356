"""Training: packed rows and labelled positions against Hugging Face's Trainer."""
