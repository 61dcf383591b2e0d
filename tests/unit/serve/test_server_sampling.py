"""Sampling, log-probabilities and several answers, through OpenAI's client."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest


def texts(answer: Any) -> list[str]:
    return [choice.message.content for choice in answer.choices]


def test_a_seed_gives_the_same_answer_alone_and_beside_others(shared: Any) -> None:
    def ask(seed: int) -> str:
        return texts(shared.chat("Where?", max_tokens=8, temperature=1.5, seed=seed))[0]

    alone = [ask(seed) for seed in (1, 2, 3)]
    with ThreadPoolExecutor(9) as pool:
        assert list(pool.map(ask, (1, 2, 3) * 3)) == alone * 3
    assert len(set(alone)) > 1
    greedy = texts(shared.chat("Where?", max_tokens=8))
    assert texts(shared.chat("Where?", max_tokens=8, temperature=0, seed=9, top_p=0.1)) == greedy
    assert texts(shared.chat("Where?", max_tokens=8, temperature=2, top_p=1e-9)) == greedy


def test_bias_and_penalties_reach_the_decoder(shared: Any) -> None:
    token = shared.service.icae.tokenizer("fox", add_special_tokens=False)["input_ids"][0]
    word = shared.service.icae.tokenizer.decode([token])
    answer = shared.chat("Where?", max_tokens=4, logit_bias={str(token): 100})
    assert texts(answer)[0] == (word * 4).strip()
    other = shared.chat(
        "Where?",
        max_tokens=4,
        logit_bias={str(token): 1.9},
        frequency_penalty=2,
        presence_penalty=2,
    )
    assert texts(other) != texts(answer)


def test_log_probabilities_of_the_tokens_and_of_those_in_their_place(shared: Any) -> None:
    answer = shared.chat("Where?", max_tokens=5, logprobs=True, top_logprobs=3)
    (choice,) = answer.choices
    told = choice.logprobs.content
    assert "".join(one.token for one in told).strip() == choice.message.content
    assert len(told) == answer.usage.completion_tokens
    for one in told:
        assert len(one.top_logprobs) == 3
        assert one.logprob == one.top_logprobs[0].logprob  # greedy
        assert 0 < math.exp(one.logprob) <= 1
    alone = shared.chat("Where?", max_tokens=5, logprobs=True).choices[0].logprobs.content
    assert [(one.token, one.top_logprobs) for one in alone] == [(one.token, []) for one in told]
    chunks = list(shared.chat("Where?", max_tokens=5, logprobs=True, top_logprobs=3, stream=True))
    streamed = [o for c in chunks for x in c.choices if x.logprobs for o in x.logprobs.content]
    assert streamed == told


def test_several_answers_to_one_question_streamed_or_not(shared: Any) -> None:
    asked = {"max_tokens": 6, "temperature": 1.5, "seed": 5, "n": 3}
    answer = shared.chat("Where?", **asked)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len(set(texts(answer))) > 1
    one = shared.chat("Where?", **{**asked, "n": 1})
    assert texts(answer)[0] == texts(one)[0]
    assert answer.usage.prompt_tokens == one.usage.prompt_tokens
    assert answer.usage.completion_tokens >= 3

    pieces, ended = {0: "", 1: "", 2: ""}, set()
    for chunk in shared.chat(
        "Where?", **asked, stream=True, stream_options={"include_usage": True}
    ):
        for choice in chunk.choices:
            pieces[choice.index] += choice.delta.content or ""
            ended |= {choice.index} if choice.finish_reason else set()
    assert [pieces[index].strip() for index in range(3)] == texts(answer)
    assert ended == {0, 1, 2}
    assert chunk.usage == answer.usage


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": "x"}, "seed"),
        ({"presence_penalty": -3}, "presence_penalty"),
        ({"frequency_penalty": 2.5}, "frequency_penalty"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias"),
        ({"n": 9}, "n"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"tools": [{"type": "function", "function": {"name": "look"}}]}, "tools"),
    ],
)
def test_a_setting_that_is_not_offered_is_refused_by_name(
    shared: Any, settings: Any, param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        shared.chat("Where?", **settings)
    assert caught.value.param == param
    assert caught.value.body["type"] == "invalid_request_error"
