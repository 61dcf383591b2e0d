from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch

from icae.decode.prefix import Request
from icae.decode.sampling import Sampler, Sampling, prompt_likely
from icae.decode.torch_decoding import TorchDecoding

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0])


def drawn(count: int, **settings: Any) -> list[int]:
    sampler = Sampler(Sampling(**settings))
    return [sampler.choose(LOGITS) for _ in range(count)]


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    counts = Counter(drawn(4000, temperature=0.7, seed=1))
    expected = (LOGITS / 0.7).softmax(dim=-1).tolist()
    assert [counts[i] / 4000 for i in range(4)] == pytest.approx(expected, abs=0.03)


def test_top_p_leaves_the_most_likely_tokens_alone() -> None:
    assert set(drawn(300, temperature=1.0, top_p=0.8, seed=1)) == {0, 1}
    assert set(drawn(50, temperature=2.0, top_p=1e-9, seed=1)) == {0}
    assert set(drawn(50, temperature=1e-300, seed=1)) == {0}


def test_penalties_and_bias_change_what_is_most_likely() -> None:
    assert drawn(4) == [0, 0, 0, 0]
    assert drawn(4, presence_penalty=1.5) == [0, 1, 0, 0]
    assert drawn(4, frequency_penalty=0.6) == [0, 0, 1, 0]
    assert drawn(2, logit_bias={3: 10.0, 0: -100.0}) == [3, 3]


def test_what_is_noted_is_the_decoders_own_probability() -> None:
    sampler = Sampler(Sampling(logit_bias={2: 50.0}, top_logprobs=2))
    sampler.choose(LOGITS)
    (noted,) = sampler.noted
    logprobs = LOGITS.log_softmax(dim=-1).tolist()
    assert noted.token == 2
    assert noted.logprob == pytest.approx(logprobs[2])
    assert [token for token, _ in noted.top] == [0, 1]
    assert noted.top[0][1] == pytest.approx(logprobs[0])


def written(engine: Any, requests: dict[int, Request], own: int) -> list[int]:
    """What row `own` writes, drawn with a seed, beside rows that join after its first token."""
    decoding = TorchDecoding(engine.runtime, [], kept_bytes=0)
    sampler = Sampler(Sampling(temperature=1.5, seed=7))
    tokens = [decoding.join({own: (requests[own], 8)}, {own: sampler})[own]]
    others = {key: (request, 3) for key, request in requests.items() if key != own}
    if others:
        drawing = {key: Sampler(Sampling(temperature=1.0)) for key in others}
        decoding.join(others, drawing)
    while decoding:
        step = decoding.step()
        tokens += [step[own]] if own in step else []
    return tokens


def test_a_seed_draws_the_same_whatever_else_is_in_the_batch(
    engine: Any, random_ids: Callable[..., Any]
) -> None:
    requests = {n: Request(prefix=None, prompt_ids=random_ids(5 + n, n)) for n in range(4)}
    alone = written(engine, {2: requests[2]}, 2)
    assert written(engine, requests, 2) == alone
    assert len(set(alone)) > 2


def test_a_prompt_is_scored_as_the_decoder_scores_it(
    engine: Any, random_ids: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("icae.decode.sampling.SCORED_TOGETHER", 5)
    ids, decoder = random_ids(12, 3), engine.runtime.model.decoder
    found = prompt_likely(decoder, ids, 2)
    with torch.inference_mode():
        logits = decoder(torch.from_numpy(ids)[None]).logits[0, :-1].float().log_softmax(dim=-1)
    assert [one.token for one in found] == ids[1:].tolist()
    expected = [float(row[token]) for row, token in zip(logits, ids[1:], strict=True)]
    assert [one.logprob for one in found] == pytest.approx(expected, abs=1e-4)
    assert [one.top[0][0] for one in found] == logits.argmax(dim=-1).tolist()
