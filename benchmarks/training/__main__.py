"""Training: packed rows and labelled positions against Hugging Face's Trainer.

The baseline is how ProAssist is trained: ``transformers.Trainer``, batches padded on the right as
they come, logits of the whole vocabulary at every position, its loss. Both sides learn the same
conversations in the same batches, from the same weights with the same optimizer, and must have the
same loss at the first step. Each runs in a process of its own, in turn.

    python -m benchmarks.training
    python -m benchmarks.training --quick
    python -m benchmarks.training --shape 1b
    python -m benchmarks.training --shape 8b

On a GPU weights are bfloat16 under autocast. The largest shape trains low-rank additions with
checkpointed layers, on both sides: nothing else fits 80 GB.
"""

from __future__ import annotations

import json

from benchmarks.training.comparison import measure
from benchmarks.training.options import fill_in, make_parser
from benchmarks.training.side import run_side


def main() -> None:
    """Measure as asked and print one JSON object."""
    options = fill_in(make_parser(__doc__.split("\n", 1)[0]).parse_args())
    print(json.dumps(run_side(options) if options.side else measure(options)))


if __name__ == "__main__":
    main()
