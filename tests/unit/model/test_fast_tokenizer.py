from __future__ import annotations

import json

import pytest

from icae.errors import BaseModelError
from icae.model.base_files import tokenizer_hash
from icae.model.fast_tokenizer import FastTokenizer
from icae.model.prompts import render_prompt, tokenize, tokenize_with_offsets

TEXTS = (
    "the thing in a shed",
    "ünïcode → 日本 🐟\n\ttabs",
    "<|user|>the<|end|>",
    " the  the ",
    "a",
)


@pytest.fixture
def folder(tmp_path, tokenizer):
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_ids_offsets_and_texts_are_those_of_transformers(folder, tokenizer):
    fast = FastTokenizer(folder)

    for text in TEXTS:
        ids, offsets = tokenize_with_offsets(tokenizer, text)
        own, own_offsets = tokenize_with_offsets(fast, text)
        assert own.tolist() == ids.tolist() == tokenize(fast, text).tolist()
        assert own_offsets == offsets
        for skip in (True, False):
            assert fast.decode(ids.tolist(), skip_special_tokens=skip) == tokenizer.decode(
                ids.tolist(), skip_special_tokens=skip
            )
    assert fast.eos_token_id == tokenizer.eos_token_id
    assert tokenizer_hash(fast) == tokenizer_hash(tokenizer)


def test_prompts_are_rendered_as_transformers_does(folder, tokenizer):
    history = [("Who?", "Me.\n"), ("Why?", "So.")]
    fast = FastTokenizer(folder)

    for turns in ((), history):
        expected = render_prompt(tokenizer, "What is it?", history=turns)
        assert render_prompt(fast, "What is it?", history=turns).tolist() == expected.tolist()


TEMPLATES = (
    None,
    "{{ bos_token }}{% for m in messages %}\n  {% if m.role == 'user' %}\nU: {{ m.content | trim }}"
    "\n  {% endif %}\n{% endfor %}\n{{ eos_token }}",
    "{% for m in messages %}{% if loop.last %}{% break %}{% endif %}{{ m | tojson }}{% endfor %}",
)


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_have_the_settings_that_transformers_gives_them(
    tmp_path, build_tokenizer, template
):
    tokenizer = build_tokenizer(chat_template=template)
    tokenizer.bos_token = "<|user|>"
    tokenizer.save_pretrained(tmp_path)

    expected = render_prompt(tokenizer, "Was ist é?", history=[("Who?", "Me.")])
    made = render_prompt(FastTokenizer(tmp_path), "Was ist é?", history=[("Who?", "Me.")])

    assert made.tolist() == expected.tolist()


def test_the_template_of_the_settings_is_read_where_there_is_no_file(folder):
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    settings = folder / "tokenizer_config.json"
    content = json.loads(settings.read_text())
    for value in (
        "{{ 1 }}",
        [{"name": "other", "template": "x"}, {"name": "default", "template": "{{ 1 }}"}],
    ):
        settings.write_text(json.dumps({**content, "chat_template": value}))
        assert FastTokenizer(folder).chat_template == "{{ 1 }}"


def test_a_template_that_refuses_a_conversation_says_why(folder):
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no history, please') }}")

    with pytest.raises(BaseModelError, match="cannot be rendered") as caught:
        render_prompt(FastTokenizer(folder), "Who?")
    assert caught.value.got == "no history, please"


def test_a_folder_without_a_fast_tokenizer_is_refused(tmp_path, folder):
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(BaseModelError, match="no fast tokenizer") as caught:
        FastTokenizer(folder)
    assert "--runtime torch" in str(caught.value.fix)
