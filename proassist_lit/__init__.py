"""Train, stream and evaluate proactive video assistants.

The layers, left to right; each imports only from its left::

    config -> data -> sequence -> model -> losses -> streaming -> metrics -> report

``lit`` (Lightning), ``cli`` and ``composition`` (Hydra) stand outside: nothing else of these layers
imports those two libraries.
"""

__version__ = "0.1.0"
