from __future__ import annotations

import pytest
import torch

from proassist_lit.model.frame_embeddings import extract_frame_embeddings

HIDDEN = torch.arange(2 * 5 * 3, dtype=torch.float64).reshape(2, 5, 3)


def test_without_mask_the_last_token_is_taken() -> None:
    torch.testing.assert_close(extract_frame_embeddings(HIDDEN, None), HIDDEN[:, 4:])


@pytest.mark.parametrize(
    ("mask", "places"),
    [
        ([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], (2, 4)),  # on the right
        ([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]], (4, 4)),  # on the left
        ([[1, 0, 1, 0, 0], [0, 1, 0, 1, 0]], (2, 3)),  # in between
        ([[1, 0, 0, 0, 0], [0, 0, 0, 0, 1]], (0, 4)),  # one token
    ],
)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.float32])
def test_last_valid_token_is_found_wherever_padding_stands(
    mask: list[list[int]], places: tuple[int, int], dtype: torch.dtype
) -> None:
    got = extract_frame_embeddings(HIDDEN, torch.tensor(mask).to(dtype))

    assert got.shape == (2, 1, 3)
    torch.testing.assert_close(got[:, 0], torch.stack([HIDDEN[0, places[0]], HIDDEN[1, places[1]]]))


def test_same_tokens_give_the_same_whichever_way_they_are_padded() -> None:
    tokens, pad = torch.randn(3, 4), torch.full((2, 4), torch.nan)
    one, none = torch.ones(3), torch.zeros(2)
    right = extract_frame_embeddings(torch.cat([tokens, pad])[None], torch.cat([one, none])[None])
    left = extract_frame_embeddings(torch.cat([pad, tokens])[None], torch.cat([none, one])[None])
    split = extract_frame_embeddings(
        torch.cat([tokens[:1], pad, tokens[1:]])[None], torch.tensor([[1, 0, 0, 1, 1]])
    )

    for got in (right, left, split):
        torch.testing.assert_close(got, tokens[None, 2:])


def test_gradient_reaches_the_last_valid_token_only() -> None:
    hidden = HIDDEN.clone().requires_grad_()
    extract_frame_embeddings(
        hidden, torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    ).sum().backward()

    reached = hidden.grad.abs().sum(-1).nonzero().tolist()
    assert reached == [[0, 2], [1, 3]]


def test_a_row_without_valid_token_is_named() -> None:
    with pytest.raises(ValueError, match=r"row 1 has no valid token among 5"):
        extract_frame_embeddings(HIDDEN, torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0, 0]]))
    with pytest.raises(ValueError, match=r"row 0 has no valid token among 0"):
        extract_frame_embeddings(HIDDEN[:, :0], None)


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"padding_mask is \(2, 4\), expected .* \(2, 5\)"):
        extract_frame_embeddings(HIDDEN, torch.ones(2, 4))
