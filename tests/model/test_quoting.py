from __future__ import annotations

import torch

from proassist_lit.model.backbone import build_backbone
from proassist_lit.model.config import ModelConfig, TinyConfig
from proassist_lit.model.tokenizer import train_tokenizer
from proassist_lit.sequence.chat import FORMATS

VOCAB = 300


def quoting_accuracy(*, quoting: bool) -> float:
    """Share of the tokens of repeated pairs that an untrained model foretells.

    The first 40 tokens are all different; the rest repeats pairs of them in random order, and what
    is asked for is the second of a pair.
    """
    torch.manual_seed(1)
    tokenizer = train_tokenizer(["x"], FORMATS["compact"], VOCAB)
    config = ModelConfig(tiny=TinyConfig(vocab_size=VOCAB, quoting=quoting))
    model = build_backbone(config, tokenizer).eval()
    plan = torch.randperm(len(tokenizer))[:40]
    starts = torch.randint(0, 39, (120,))
    pairs = torch.stack([plan[starts], plan[starts + 1]], dim=1)
    ids = torch.cat([plan, pairs.flatten()])[None]
    with torch.inference_mode():
        guesses = model(input_ids=ids).logits[0].argmax(-1)
    asked = torch.arange(40, ids.shape[1], 2)
    return float((guesses[asked] == pairs[:, 1]).float().mean())


def test_wired_backbone_quotes_without_training() -> None:
    assert quoting_accuracy(quoting=True) > 0.25


def test_plain_backbone_does_not() -> None:
    assert quoting_accuracy(quoting=False) < 0.05


def test_wiring_leaves_every_parameter_free_to_train() -> None:
    tokenizer = train_tokenizer(["x"], FORMATS["compact"], VOCAB)
    model = build_backbone(ModelConfig(), tokenizer)
    model(input_ids=torch.arange(20)[None]).logits.logsumexp(-1).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad, name
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0 or "k_proj.bias" in name, name
