"""The vLLM runtime against the torch runtime, on tiny models behind a stand-in for a server."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import numpy as np
import pytest
import torch

from icae.decode.prefix import Prefix, Request
from icae.decode.vllm.client import VllmAddress, VllmClient
from icae.errors import (
    BaseModelError,
    ConfigError,
    IncompatibleMemoryError,
    InputError,
    MissingDependencyError,
    ServiceError,
)
from icae.memory import Embeddings
from mixed_prefix import mixed_prefix

AROUND = {"framing": "around", "objective_tokens": 3}
NOTHING = np.zeros(0, dtype=np.int64)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_embeds_are_sent_in_the_precision_asked_for(
    start: Any, random_ids: Any, dtype: str
) -> None:
    torch_runtime, vllm, stub = start(dtype=dtype)

    vllm.generate(mixed_prefix(torch_runtime, random_ids), NOTHING, max_new_tokens=1, stop_ids=())

    assert stub.dtypes == [f"torch.{dtype}"]
    assert vllm.slot_dtypes[0] == dtype
    assert set(vllm.slot_dtypes) == {"bfloat16", "float32"}


def test_many_answers_are_at_the_server_together(start: Any, random_ids: Any) -> None:
    torch_runtime, vllm, stub = start(config=AROUND)
    shared = mixed_prefix(torch_runtime, random_ids)
    requests = [
        Request(prefix=prefix, prompt_ids=random_ids(3 + i, 20 + i))
        for i, prefix in enumerate([shared, None, shared, None])
    ]

    # No answer begins before all requests are there.
    stub.together = threading.Barrier(len(requests), timeout=10)

    made = vllm.generate_many(requests, max_new_tokens=5, stop_ids=())

    expected = torch_runtime.generate_many(requests, max_new_tokens=5, stop_ids=())
    assert [m.token_ids for m in made] == [m.token_ids for m in expected]


def test_every_memory_and_every_user_has_a_salt_of_its_own(start: Any, random_ids: Any) -> None:
    torch_runtime, vllm, stub = start(address={"secret": "s3cret"})
    first = mixed_prefix(torch_runtime, random_ids)
    second = Prefix.of_payload(
        torch_runtime.encode([random_ids(8, 5)], [2])[0], tokens=8, objective="ft"
    )

    for runtime in (vllm, vllm.apart("anna"), vllm.apart("bert")):
        for prefix in (first, second, first, None):
            runtime.generate(prefix, random_ids(4), max_new_tokens=1, stop_ids=())

    salts = [body["cache_salt"] for body in stub.bodies]
    assert salts == stub.memories[-len(salts) :]
    assert salts[0] == salts[2]
    assert len(set(salts)) == 9
    assert not any("s3cret" in salt or "anna" in salt for salt in salts)
    assert "s3cret" not in repr(vllm) + repr(vllm.client.address)


def test_an_answer_that_nobody_wants_ends_at_the_server_too(start: Any, random_ids: Any) -> None:
    class GoneError(Exception):
        pass

    def gone(token: int) -> None:
        raise GoneError

    _, vllm, stub = start()
    stub.written = 0
    with pytest.raises(GoneError):
        vllm.generate(None, random_ids(5), max_new_tokens=200, stop_ids=(), on_token=gone)

    assert stub.written < 200


def test_slots_of_another_width_are_never_sent(start: Any) -> None:
    _, vllm, stub = start()
    slots = Embeddings(slots_KD=np.zeros((2, 31), dtype=np.float32))
    prefix = Prefix.of_payload(slots, tokens=8, objective="ft")

    with pytest.raises(IncompatibleMemoryError, match="not sent"):
        vllm.generate(prefix, NOTHING, max_new_tokens=1, stop_ids=())
    assert stub.bodies == []


@pytest.mark.parametrize(
    ("name", "root", "wanted", "found"),
    [
        ("tiny-base", "/models/x", None, True),
        ("llm", "/models/Tiny_Base-hf", None, True),
        ("llm", "org/other", "llm", True),
        ("llm", "org/other", None, False),
        ("tiny-base", "org/other", "llm", False),
    ],
)
def test_the_model_is_found_by_the_name_of_the_base_or_the_one_given(
    start: Any, name: str, root: str, wanted: str | None, found: bool
) -> None:
    def connect() -> Any:
        return start(name=name, root=root, address={"model": wanted})

    if found:
        assert connect()[1].model.name == name
        return
    with pytest.raises(BaseModelError, match="does not serve the base model") as caught:
        connect()
    assert "--engine-model" in str(caught.value.fix)


def test_a_lora_of_the_server_is_never_asked(start: Any) -> None:
    plain = {"id": "tiny-base", "root": "x", "parent": None, "max_model_len": 99}
    tuned = {"id": "tiny-base-tuned", "root": "x", "parent": "tiny-base", "max_model_len": 99}

    assert start(listed=[tuned, plain])[1].model.name == "tiny-base"
    with pytest.raises(BaseModelError):
        start(listed=[tuned])


def test_the_key_is_sent_and_a_wrong_one_refused(start: Any) -> None:
    assert start(key="k", address={"api_key": "k"})[1].name == "vllm float32"
    with pytest.raises(ServiceError, match="refuses the key") as caught:
        start(key="k", address={"api_key": "wrong"})
    assert "ICAE_ENGINE_KEY" in str(caught.value.fix)


def test_a_server_that_is_not_there_is_told_with_how_to_start_one() -> None:
    client = VllmClient(VllmAddress(url="http://127.0.0.1:9"))
    client._client.max_retries = 0

    with pytest.raises(ServiceError, match="There is no vLLM server") as caught:
        client.served()
    assert "vllm.entrypoints.openai.api_server" in str(caught.value.fix)


def test_a_family_whose_embeddings_are_not_known_is_refused(start: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("icae.decode.vllm.base_model.EMBEDDINGS", {"qwen2": "x"})

    with pytest.raises(BaseModelError, match="not known how") as caught:
        start()
    assert caught.value.got == "llama"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://[", ""])
def test_an_address_that_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no URL"):
        VllmAddress(url=url)


def test_the_way_to_vllm_imports_no_transformers_and_torch_only_to_send() -> None:
    code = (
        "import sys, icae.cli.ask, icae.opening, icae.decode.vllm.runtime; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_greedy_decoding_is_asked_for_in_full(start: Any, random_ids: Any) -> None:
    _, vllm, stub = start(window=100)

    vllm.generate(None, random_ids(5), max_new_tokens=2, stop_ids=[9])

    said = {"temperature": 0.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "ignore_eos": True}
    said |= {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    assert (said | {"stop_token_ids": [9]}).items() <= stub.bodies[-1].items()
    assert vllm.context_window == 100
    with pytest.raises(InputError, match="stays in the vLLM server"):
        vllm.save_kv(Prefix(parts=(), spans=(), objective="ft"))
    with pytest.raises(InputError, match="takes no key-value cache"):
        vllm.load_kv(Prefix(parts=(), spans=(), objective="ft"), b"")


def wide(build_decoder: Any) -> Any:
    decoder = build_decoder()
    decoder.set_input_embeddings(torch.nn.Embedding(288, 48))
    return decoder


@pytest.mark.parametrize(
    ("server", "error", "message"),
    [
        (lambda build: {"runs": build(seed=9)}, BaseModelError, "embeds tokens differently"),
        (lambda build: {"runs": wide(build)}, BaseModelError, "another model(.|\n)*hidden_size 32"),
        (lambda _: {"takes_embeds": False}, ServiceError, "no prompt embeds(.|\n)*--enable-prompt"),
        (lambda _: {"listed": [{"id": "tiny-base"}]}, ServiceError, "no vLLM server"),
        (lambda _: {"token_ids": False}, ServiceError, "without token ids"),
    ],
)
def test_a_server_of_another_kind_is_refused(
    start: Any, build_decoder: Any, server: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        start(**server(build_decoder))


@pytest.mark.parametrize(
    ("trouble", "error", "message"),
    [
        ({"breaks_after": 2}, ServiceError, "connection broke"),
        ({"aborts": True}, ServiceError, "broke an answer off"),
        ({"answers_after": 0.8}, ServiceError, "in time"),
        ({"window": 12}, InputError, "do not fit the context window"),
    ],
)
def test_trouble_of_the_server_is_told(
    start: Any, random_ids: Any, trouble: dict[str, Any], error: Any, message: str
) -> None:
    _, vllm, stub = start(address={"timeout_s": 0.5})
    for name, value in trouble.items():
        setattr(stub, name, value)

    with pytest.raises(error, match=message):
        vllm.generate(None, random_ids(5), max_new_tokens=8, stop_ids=())


def test_an_address_and_a_client_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert VllmAddress(url=url).base_url == "http://h:1/v1"
    with pytest.raises(ConfigError, match="time to wait"):
        VllmAddress(url="http://h:1", timeout_s=0)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(MissingDependencyError, match=r"needs openai(.|\n)*\.\[vllm\]"):
        VllmClient(VllmAddress(url="http://127.0.0.1:9"))
