"""``/v1/completions`` through OpenAI's client, as lm-eval's local-completions asks it."""

from __future__ import annotations

from typing import Any

import openai
import pytest
import torch

from icae.model.prompts import tokenize

TEXT = "The fox is in the inn."


def complete(server: Any, prompt: Any, **settings: Any) -> Any:
    asked = {"model": "tiny", "prompt": prompt, "max_tokens": 5, **settings}
    return server.openai().completions.create(**asked)


@pytest.fixture
def ids(engine: Any) -> list[int]:
    return tokenize(engine.tokenizer, TEXT).tolist()


def test_a_text_or_its_token_ids_are_gone_on_with(shared: Any, engine: Any, ids: list[int]) -> None:
    made = engine.runtime.generate(
        None, torch.tensor(ids).numpy(), max_new_tokens=5, stop_ids=engine.answerer.stop_ids
    )
    expected = engine.tokenizer.decode(made.token_ids)
    for prompt in (TEXT, ids, [TEXT], [ids]):
        answer = complete(shared, prompt)
        assert answer.choices[0].text == expected
        assert answer.usage.prompt_tokens == len(ids)
    several = complete(shared, [ids, ids[:4], ids], n=2)
    texts = [choice.text for choice in several.choices]
    assert [choice.index for choice in several.choices] == list(range(6))
    assert texts[:2] == texts[4:] == [expected] * 2
    assert several.usage.prompt_tokens == 2 * len(ids) + 4


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_an_echoed_prompt_has_the_probabilities_that_the_decoder_gives(
    shared: Any, engine: Any, ids: list[int], max_tokens: int
) -> None:
    answer = complete(shared, [ids, ids[:5]], max_tokens=max_tokens, echo=True, logprobs=1, seed=1)
    decoder = engine.runtime.model.decoder
    for choice, prompt in zip(answer.choices, (ids, ids[:5]), strict=True):
        told = choice.logprobs
        assert len(told.tokens) == len(prompt) + max_tokens
        assert told.token_logprobs[0] is None
        assert told.top_logprobs[0] is None
        with torch.inference_mode():
            rows = decoder(torch.tensor([prompt])).logits[0, :-1].float().log_softmax(dim=-1)
        expected = [float(row[token]) for row, token in zip(rows, prompt[1:], strict=True)]
        assert told.token_logprobs[1 : len(prompt)] == pytest.approx(expected, abs=1e-4)
        # How lm-eval sees whether the decoder would have written the same.
        greedy = [max(top.values()) == own for own, top in pairs(told, len(prompt))]
        assert greedy == (rows.argmax(dim=-1) == torch.tensor(prompt[1:])).tolist()
        assert choice.text.startswith(engine.tokenizer.decode(prompt))
        assert told.text_offset[2] == len(told.tokens[0] + told.tokens[1])


def pairs(told: Any, end: int) -> Any:
    return zip(told.token_logprobs[1:end], told.top_logprobs[1:end], strict=True)


def test_an_answer_has_the_probabilities_of_its_own_tokens(shared: Any) -> None:
    answer = complete(shared, TEXT, logprobs=2)
    told = answer.choices[0].logprobs
    assert "".join(told.tokens) == answer.choices[0].text
    assert all(len(top) <= 3 and max(top.values()) == own for own, top in pairs(told, None))


def test_a_stream_adds_up_to_the_whole_text(shared: Any) -> None:
    for settings in ({}, {"echo": True, "logprobs": 1}, {"n": 2, "temperature": 1.2, "seed": 1}):
        whole = complete(shared, TEXT, **settings)
        texts = [""] * len(whole.choices)
        for chunk in complete(shared, TEXT, stream=True, **settings):
            for choice in chunk.choices:
                texts[choice.index] += choice.text
                last = choice
        assert texts == [choice.text for choice in whole.choices]
        assert last.finish_reason == whole.choices[last.index].finish_reason
        assert last.logprobs == whole.choices[last.index].logprobs


def test_a_stop_text_ends_a_text_too(shared: Any) -> None:
    said = complete(shared, TEXT, max_tokens=8).choices[0].text
    stop = said[2:4]
    answer = complete(shared, TEXT, max_tokens=8, stop=[stop], logprobs=1)
    assert answer.choices[0].text == said[: said.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    ("settings", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1.5]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": [99999999]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["x"] * 20, "n": 8}, "prompt"),
        ({"prompt": "The inn is far. " * 60}, "prompt"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"logprobs": 21}, "logprobs"),
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(shared: Any, settings: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        complete(shared, **{"prompt": TEXT, **settings})
    assert caught.value.param == param
