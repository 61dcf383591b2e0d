"""Tools and what they gave, written by a chat template that has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openai
import pytest
from transformers import AddedToken

from icae.model.fast_tokenizer import FastTokenizer
from icae.model.prompts import render_messages, takes_tools
from icae.serve.chat_models import ToolCall, ToolFunction

TEMPLATE = (
    "{% for tool in tools or [] %}<|user|>{{ tool | tojson }}<|end|>{% endfor %}"
    "{% for m in messages %}{{ '<|assistant|>' if m.role == 'assistant' else '<|user|>' }}"
    "{{ m.role[0] }}:{{ m.content }}{% for call in m.tool_calls %}"
    "@{{ call.function.name }}{{ call.function.arguments | tojson }}{% endfor %}<|end|>"
    "{% endfor %}{% if messages[0].role == 'tool' %}{{ raise_exception('No user.') }}{% endif %}"
    "<|assistant|>"
)
TOOL = {"type": "function", "function": {"name": "look"}}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "inn"}'}}
MESSAGES = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "A <|end|>."},
]
SAID = (
    '<|user|>{"type": "function", "function": {"name": "look"}}<|end|><|user|>u:Who?<|end|>'
    '<|assistant|>a:@look{"at": "inn"}<|end|><|user|>t:A <|end|>.<|end|><|assistant|>'
)


@pytest.fixture
def able(build_tokenizer: Any) -> Any:
    return build_tokenizer(chat_template=TEMPLATE)


@pytest.fixture
def engine(build_engine: Any, able: Any) -> Any:
    return build_engine(own_tokenizer=able)


def test_a_template_with_tools_writes_them_and_all_in_them_is_text(
    able: Any, engine: Any, tmp_path: Path
) -> None:
    able.save_pretrained(tmp_path)
    call = {"function": {"name": "look", "arguments": {"<|end|>": ["<|user|>", 1, None]}}}
    messages = [{"role": "assistant", "content": "A <|end|>.", "tool_calls": [call]}]
    for tokenizer in (able, FastTokenizer(tmp_path)):
        assert takes_tools(tokenizer, engine.config.asking)
        ids = render_messages(tokenizer, messages, tools=[TOOL]).tolist()
        assert tokenizer.decode(ids) == (
            '<|user|>{"type": "function", "function": {"name": "look"}}<|end|><|assistant|>'
            'a:A <|end|>.@look{"<|end|>": ["<|user|>", 1, null]}<|end|><|assistant|>'
        )
        control = [able.decode([i]) for i in ids if i in able.all_special_ids]
        assert control == ["<|user|>", "<|end|>", "<|assistant|>", "<|end|>", "<|assistant|>"]


def test_a_special_token_that_json_escapes_is_text_too(able: Any) -> None:
    able.add_tokens(AddedToken('<|"|>', special=True), special_tokens=True)
    ids = render_messages(able, [{"role": "user", "content": 'A <|"|>.'}]).tolist()
    assert able.decode(ids) == '<|user|>u:A <|"|>.<|end|><|assistant|>'
    assert able.backend_tokenizer.token_to_id('<|"|>') not in ids


def test_arguments_that_go_too_deep_stay_text() -> None:
    deep = ToolFunction(name="look", arguments="[" * 5000 + "]" * 5000)
    assert ToolCall(function=deep).rendered["function"]["arguments"] == deep.arguments


def test_a_conversation_with_tools_is_read_as_the_template_writes_it(
    serve: Any, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    behind = type(engine)._behind

    def noted(self: Any, prefix: Any, prompt_ids: Any) -> Any:
        read.append(self.tokenizer.decode(prompt_ids))
        return behind(self, prefix, prompt_ids)

    monkeypatch.setattr(type(engine), "_behind", noted)
    server = serve()
    server.chat(MESSAGES, tools=[TOOL], tool_choice="auto")
    server.chat(MESSAGES, tools=[TOOL], tool_choice="none")
    assert read == [SAID, SAID[SAID.index("<|user|>u") :]]
    memory = server.make_memory("The inn.")
    server.chat([*server.about(memory["id"]), *MESSAGES[1:]])
    assert "A <|end|>." in read[-1]
    with pytest.raises(openai.BadRequestError) as caught:
        server.chat(MESSAGES, tools=[TOOL], tool_choice="required")
    assert caught.value.param == "tool_choice"
    with pytest.raises(openai.BadRequestError, match=r"does not take these messages.*No user"):
        server.chat(MESSAGES[2:])
