"""Backbone, projector and heads. A batch in, hidden states and logits out; no loss."""

import logging

# peft reads bitsandbytes, where it is installed: on some CPUs each process would be told of kernels
# that are to be had from the hub.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
