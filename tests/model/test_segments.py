from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from proassist_lit.errors import ConfigError
from proassist_lit.model import segments
from proassist_lit.model.assistant import AssistantModel
from proassist_lit.model.segments import BY_POSITION, BY_SEGMENT, Segments, can_pack
from proassist_lit.model.text_side import take_text_side
from tests.model.test_architectures import ROUNDED, TABLE
from tests.model.tiny_lms import MAX_POSITIONS, assistant, causal_lm, embeddings, vision_lm

LENGTHS = (17, 5, 11)
VISION = ("SmolVLM", "Gemma3", "Qwen2VL", "Qwen2_5_VL", "Qwen3VL")
MODELS = {**{name: lambda n=name: causal_lm(TABLE[n][0], **TABLE[n][1]) for name in TABLE},
          **{name: lambda n=name: take_text_side(vision_lm(n)) for name in VISION}}  # fmt: skip


def where(lengths: tuple[int, ...] = LENGTHS) -> Segments:
    ids = torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths))
    return Segments.of(lengths, ids[None])


def packed_and_apart(model: AssistantModel) -> tuple[list[Tensor], list[Tensor]]:
    """Hidden states and the gradient of the embeddings."""
    found = []
    for is_packed in (True, False):
        embeds = embeddings(sum(LENGTHS))[None].requires_grad_()
        if is_packed:
            hidden = model.hidden_states(embeds, segments=where())
        else:
            parts = torch.split(embeds, list(LENGTHS), dim=1)
            hidden = torch.cat([model.hidden_states(part) for part in parts], dim=1)
        hidden.sin().sum().backward()
        found.append([hidden.detach(), embeds.grad])
    return found[0], found[1]


@pytest.mark.parametrize("name", MODELS)
def test_packed_equals_apart(name: str) -> None:
    model = assistant(MODELS[name]())
    if not model.can_pack:
        assert name == "bloom"  # its positions are a bias of attention, counted from the left
        return
    packed, apart = packed_and_apart(model)
    atol = 1e-5 if name in ROUNDED else 1e-9
    for ours, wanted in zip(packed, apart, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=atol)


@pytest.mark.parametrize("name", [n for n in MODELS if n not in ("opt", "bloom", "Qwen2VL",
                                                                 "Qwen2_5_VL")])  # fmt: skip
def test_packed_equals_apart_with_hugging_faces_mask(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segments, "BY_SEGMENT", set())
    model = assistant(MODELS[name]())
    assert model.can_pack
    assert not model._by_segment
    packed, apart = packed_and_apart(model)
    atol = 1e-5 if name in ROUNDED else 1e-9
    for ours, wanted in zip(packed, apart, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=atol)


def test_every_type_of_the_tables_is_tested() -> None:
    types = {make().get_decoder().config.model_type for make in MODELS.values()}

    assert types - {"bloom"} == BY_SEGMENT | BY_POSITION


@pytest.mark.parametrize(
    ("name", "changes"),
    [("Mistral", {"sliding_window": 7}), ("Llama", {"attn_implementation": "eager"})],
    ids=["sliding", "eager"],
)
def test_windows_and_other_attentions_are_left_to_hugging_face(
    name: str, changes: dict[str, Any]
) -> None:
    model = assistant(causal_lm(name, **changes))

    assert not model._by_segment
    packed, apart = packed_and_apart(model)
    atol = 1e-5 if "attn_implementation" in changes else 1e-9  # its softmax is in float32
    torch.testing.assert_close(packed[0], apart[0], rtol=1e-5, atol=atol)


def test_positions_begin_anew_in_each_conversation() -> None:
    found = where((3, 1, 2))

    assert found.position_ids.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert found.offsets.tolist() == [0, 3, 4, 6]
    assert found.offsets.dtype == torch.int32  # what the kernel for GPUs reads


def test_only_the_longest_conversation_counts_for_the_limit_of_positions() -> None:
    model = assistant(causal_lm(TABLE["gpt2"][0], **TABLE["gpt2"][1]))
    half = MAX_POSITIONS // 2 + 1
    model.hidden_states(embeddings(2 * half)[None], segments=where((half, half)))

    long = MAX_POSITIONS + 1
    with pytest.raises(ConfigError, match=rf"table of positions .* tokens, got {long}; lower"):
        model.hidden_states(embeddings(long + 2)[None], segments=where((2, long)))


def test_the_kernel_for_gpus_is_asked_for_causal_attention_of_each_conversation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: dict[str, Any] = {}

    def kernel(q, k, v, begins, begins_k, longest, longest_k, *, scale, window_size, enable_gqa):
        asked.update(longest=longest, window_size=window_size, enable_gqa=enable_gqa)
        assert longest == longest_k
        assert begins is begins_k
        group, outs = q.shape[1] // k.shape[1], []
        for start, end in zip(begins[:-1].tolist(), begins[1:].tolist(), strict=True):
            one, keys, values = q[start:end], k[start:end], v[start:end]
            keys, values = (x.repeat_interleave(group, dim=1) for x in (keys, values))
            scores = torch.einsum("qhd,khd->hqk", one, keys) * scale
            scores = scores + torch.full_like(scores, -torch.inf).triu(1)
            outs.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), values))
        return torch.cat(outs)

    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    model = assistant(causal_lm("Llama", **heads))
    plain, _ = packed_and_apart(model)
    monkeypatch.setattr(segments, "_KERNEL", kernel)
    monkeypatch.setattr(segments, "_fits_kernel", lambda query: True)
    fused, _ = packed_and_apart(model)

    assert asked == {"longest": 17, "window_size": (-1, 0), "enable_gqa": True}
    for ours, wanted in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)

    def older(q, k, v, begins, begins_k, longest, longest_k, *, scale, window_size):
        assert q.shape == k.shape == v.shape
        return kernel(q, k, v, begins, begins_k, longest, longest_k, scale=scale,
                      window_size=window_size, enable_gqa=False)  # fmt: skip

    monkeypatch.setattr(segments, "_KERNEL", older)
    for ours, wanted in zip(packed_and_apart(model)[0], plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


def test_under_autocast_the_kernel_is_given_what_autocast_would_give_sdpa(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kinds = list[torch.dtype]()

    def fits(query: torch.Tensor) -> bool:
        kinds.append(query.dtype)
        return False

    monkeypatch.setattr(segments, "_KERNEL", segments._KERNEL or object())
    monkeypatch.setattr(segments, "_fits_kernel", fits)
    query = torch.randn(1, 4, 6, 8)
    keys, values = torch.randn(1, 2, 6, 8), torch.randn(1, 2, 6, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = segments._attend(query, keys, values, where((4, 2)), 0.0, None)

    assert kinds == [torch.bfloat16]
    assert out.dtype == torch.bfloat16


@pytest.mark.parametrize("is_packed", [True, False])
def test_heads_are_repeated_where_sdpa_would_keep_all_scores_for_groups(
    is_packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = assistant(causal_lm("Llama", num_attention_heads=4, num_key_value_heads=2, head_dim=8))
    plain = packed_and_apart(model)[not is_packed]
    asked, sdpa = list[tuple[int, int, bool]](), F.scaled_dot_product_attention

    def spy(query: Tensor, key: Tensor, value: Tensor, *args: Any, **options: Any) -> Tensor:
        asked.append((query.shape[1], key.shape[1], options.get("enable_gqa", False)))
        return sdpa(query, key, value, *args, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", spy)
    monkeypatch.setattr(segments, "_lacks_groups", lambda query, key: True)
    repeated = packed_and_apart(model)[not is_packed]

    assert set(asked) == {(4, 4, False)}
    for ours, wanted in zip(repeated, plain, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("is_cuda", "heads", "dtype", "capability", "lacks"),
    [
        (True, 2, torch.float32, (9, 0), True),
        (True, 2, torch.bfloat16, (9, 0), False),
        (True, 2, torch.float16, (7, 5), True),
        (True, 4, torch.float32, (9, 0), False),
        (False, 2, torch.float32, (9, 0), False),
    ],
)
def test_a_gpu_lacks_groups_in_32_bits_and_before_ampere(
    is_cuda: bool, heads: int, dtype: torch.dtype, capability: tuple[int, int], lacks: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    query, key = (
        SimpleNamespace(
            is_cuda=is_cuda, shape=(1, number, 6, 8), dtype=dtype, device=torch.device("cpu")
        )
        for number in (4, heads)
    )
    assert segments._lacks_groups(query, key) is lacks  # type: ignore[arg-type]
    if dtype is torch.float32 and heads < 4:
        with torch.autocast("cpu", torch.bfloat16):
            assert not segments._lacks_groups(query, key)  # type: ignore[arg-type]


def test_this_pytorch_has_the_kernel_and_a_cpu_does_not_use_it() -> None:
    assert segments._find_kernel() is not None
    assert not segments._fits_kernel(torch.zeros(1, 2, 3, 64, dtype=torch.bfloat16))


def test_an_attention_that_is_not_ours_packs_by_positions_or_not_at_all() -> None:
    lm = causal_lm(TABLE["opt"][0], **TABLE["opt"][1], attn_implementation="eager")

    assert not can_pack(lm)
    assert not assistant(lm).can_pack
