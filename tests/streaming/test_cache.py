from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest
import torch
from torch import Tensor

from proassist_lit.streaming.cache import KVCache
from tests.fakes import ScriptedModel, tiny_model

LENGTH = 24


@pytest.fixture(scope="module")
def model() -> ScriptedModel:
    return tiny_model()


def embeds(seed: int = 0, length: int = LENGTH) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, length, 16, generator=generator, dtype=torch.float64)


@torch.no_grad()
def stream(model: ScriptedModel, chunks: Iterable[Tensor], cache: KVCache) -> Iterator[Tensor]:
    for chunk in chunks:
        yield model.hidden_states(chunk, cache=cache)


@pytest.mark.parametrize("capacity", [1, 8, 512])
@pytest.mark.parametrize("chunks", [[24], [7, 1, 1, 15], [1] * 24, [23, 1]])
def test_streaming_in_chunks_matches_one_forward(
    model: ScriptedModel, chunks: list[int], capacity: int
) -> None:
    cache = KVCache(2, capacity)
    streamed = torch.cat(list(stream(model, embeds().split(chunks, dim=1), cache)), dim=1)

    with torch.no_grad():
        torch.testing.assert_close(streamed, model.hidden_states(embeds()), atol=1e-12, rtol=0)
    assert len(cache) == LENGTH


def test_cropped_cache_goes_on_as_if_the_rest_was_never_seen(model: ScriptedModel) -> None:
    cache = KVCache(2, 4)
    list(stream(model, [embeds(), embeds(1)], cache))
    cache.crop(10)
    again = torch.cat(list(stream(model, embeds(2, 6).split([1, 5], dim=1), cache)), dim=1)

    with torch.no_grad():
        whole = model.hidden_states(torch.cat([embeds()[:, :10], embeds(2, 6)], dim=1))
    torch.testing.assert_close(again, whole[:, 10:], atol=1e-12, rtol=0)
    assert len(cache) == 16


def test_crop_to_nothing_starts_afresh(model: ScriptedModel) -> None:
    cache = KVCache(2)
    list(stream(model, [embeds()], cache))
    cache.crop(0)
    assert len(cache) == 0

    [again] = stream(model, [embeds(3)], cache)

    with torch.no_grad():
        torch.testing.assert_close(again, model.hidden_states(embeds(3)), atol=1e-12, rtol=0)


def test_crop_refuses_more_than_it_holds(model: ScriptedModel) -> None:
    cache = KVCache(2)
    list(stream(model, [embeds()], cache))

    with pytest.raises(ValueError, match=r"cannot keep 25 of 24 tokens"):
        cache.crop(25)
    with pytest.raises(ValueError, match=r"cannot keep -1 of 24 tokens"):
        cache.crop(-1)
    assert len(cache) == 24


@pytest.mark.parametrize("capacity", [16, 512])  # room to grow into, or not
def test_fork_goes_its_own_way(model: ScriptedModel, capacity: int) -> None:
    cache = KVCache(2, capacity)
    list(stream(model, [embeds()], cache))
    fork = cache.fork()
    got: list[list[Tensor]] = [[], []]
    for ours, theirs in zip(embeds(1).split(8, dim=1), embeds(2).split(8, dim=1), strict=True):
        got[0] += stream(model, [ours], cache)
        got[1] += stream(model, [theirs], fork)

    with torch.no_grad():
        for parts, tail in zip(got, (embeds(1), embeds(2)), strict=True):
            whole = model.hidden_states(torch.cat([embeds(), tail], dim=1))
            torch.testing.assert_close(
                torch.cat(parts, dim=1), whole[:, LENGTH:], atol=1e-12, rtol=0
            )


def test_fork_of_an_empty_cache_is_usable(model: ScriptedModel) -> None:
    [got] = stream(model, [embeds()], KVCache(2).fork())

    with torch.no_grad():
        torch.testing.assert_close(got, model.hidden_states(embeds()), atol=1e-12, rtol=0)


def test_cache_grows_by_doubling_and_writes_in_place(model: ScriptedModel) -> None:
    cache = KVCache(2, 8)
    capacities, places = [], []
    for chunk in embeds().split(1, dim=1):
        list(stream(model, [chunk], cache))
        capacities.append(cache.layers[0].capacity)
        places.append(cache.layers[0].keys.data_ptr())

    assert capacities == [8] * 8 + [16] * 8 + [32] * 8
    assert len(set(places)) <= 3  # never copied on an ordinary step
    assert len(set(places[:8])) == len(set(places[8:16])) == 1
