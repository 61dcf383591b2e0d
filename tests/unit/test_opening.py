from __future__ import annotations

import importlib.util
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from icae import opening
from icae.decode.vllm.client import VllmAddress
from icae.errors import AdapterError, BaseModelError, InputError, MissingDependencyError
from icae.model.base import computation_hash
from icae.opening import open_llamacpp, open_reader
from vllm_stub import vllm_stub

needs_llamacpp = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None,
    reason="llama-cpp-python is not installed; `make test-llamacpp` installs it",
)
SERVER = VllmAddress(url="http://127.0.0.1:9")
AROUND = {"framing": "around", "objective_tokens": 2}
TEXT = "the thing in the shed is a tin and in it is a thin ring"


@pytest.fixture
def save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, build_model: Any, tokenizer: Any, info_for: Any
) -> Callable[..., dict[str, str]]:
    """``save(**config)``: a base and an adapter in folders, and a cache of their own."""

    def both(**config: Any) -> dict[str, str]:
        from icae.model.adapter import save_adapter

        monkeypatch.setenv("ICAE_CACHE", str(tmp_path / "cache"))
        model, base = build_model(**AROUND, **config), tmp_path / "base"
        model.decoder.save_pretrained(base)
        tokenizer.save_pretrained(base)
        info = info_for(model, tokenizer, base=str(base))
        return {"adapter": str(save_adapter(model, info, tmp_path / "adapter")), "base": str(base)}

    return both


@pytest.fixture
def saved(save: Any) -> dict[str, str]:
    """An adapter whose memories are embeddings."""
    return save()  # type: ignore[no-any-return]


@pytest.fixture
def of_key_values(save: Any) -> dict[str, str]:
    """An adapter whose memories are keys and values."""
    return save(memory="key-values")  # type: ignore[no-any-return]


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if llama.cpp were installed on a machine without a GPU."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(opening, "NVIDIA_DRIVER", Path("/nowhere"))


def open_named(monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setattr(opening, "open_llamacpp", lambda *_, **__: "llamacpp")
    return open_reader(load_torch=lambda *_, **__: "torch", **options)  # type: ignore[arg-type,return-value]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, "llamacpp"),
        ({"device": "cpu"}, "llamacpp"),
        ({"device": "cuda"}, "torch"),
        ({"runtime": "torch"}, "torch"),
        ({"runtime": "llamacpp"}, "llamacpp"),
    ],
)
def test_auto_takes_llama_cpp_unless_another_device_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], chosen: str
) -> None:
    assert open_named(monkeypatch, **options) == chosen
    monkeypatch.setattr(opening, "NVIDIA_DRIVER", Path("/"))
    assert open_named(monkeypatch) == "torch"
    assert open_named(monkeypatch, device="cpu") == "llamacpp"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert open_named(monkeypatch, device="cpu") == "torch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runtime": "abacus"}, "no such runtime(.|\n)*auto, torch, llamacpp, vllm"),
        ({"runtime": "torch", "engine": SERVER}, "neither another runtime nor a device"),
        ({"device": "cuda:0", "engine": SERVER}, "neither another runtime nor a device"),
        ({"runtime": "vllm"}, "none is named(.|\n)*--engine"),
        ({"runtime": "llamacpp", "device": "cuda:0"}, "takes no torch device"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_reader(**options)


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    "error", [BaseModelError("unknown architecture"), InputError("positions with gaps")]
)
def test_auto_falls_back_to_torch_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: Any, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(opening, "open_llamacpp", fail)
    with caplog.at_level(logging.WARNING, logger="icae"):
        assert open_reader(load_torch=lambda *_, **__: "torch") == "torch"  # type: ignore[arg-type,comparison-overlap,return-value]
    assert str(error) in caplog.text
    with pytest.raises(type(error)):
        open_reader(runtime="llamacpp")


def test_the_way_to_llama_cpp_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, icae.cli.app, icae.cli.ask, icae.opening, icae.decode.kv_file; "
        "import icae.model.fast_tokenizer, icae.decode.llamacpp.runtime; "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("runtime", ["auto", "vllm"])
def test_an_engine_is_asked_wherever_one_is_named(
    monkeypatch: pytest.MonkeyPatch, runtime: Any
) -> None:
    monkeypatch.setattr(opening, "open_vllm", lambda engine, *_, **__: engine)

    assert open_reader(runtime=runtime, engine=SERVER) is SERVER  # type: ignore[comparison-overlap]


def test_a_memory_made_in_torch_is_read_by_a_vllm_server(saved: dict[str, str]) -> None:
    from transformers import AutoModelForCausalLM

    from icae import engine as api

    engine = api.load(saved["adapter"], device="cpu", dtype="float32")
    memory = engine.compress(TEXT, ratio=4) + engine.verbatim(" and a thin ring")
    with vllm_stub(AutoModelForCausalLM.from_pretrained(saved["base"])) as stub:
        address = VllmAddress(url=stub.url)
        reader = open_reader(saved["adapter"], engine=address, dtype="float32")

        answer = reader.ask(memory, "Where?", max_new_tokens=6)
        whole = reader.ask_text(TEXT, "Where?", max_new_tokens=6)
        made = reader.reconstruct(memory)
        both = engine.answering_in(reader.decoder)
        again = both.ask(both.compress(TEXT, ratio=4), "Where?", max_new_tokens=6)

    assert answer.runtime == again.runtime == "vllm float32"
    assert again.text == engine.ask(engine.compress(TEXT, ratio=4), "Where?", max_new_tokens=6).text
    assert answer.text == engine.ask(memory, "Where?", max_new_tokens=6).text
    assert whole.text == engine.ask_text(TEXT, "Where?", max_new_tokens=6).text
    assert [r.text for r in made] == [r.text for r in engine.reconstruct(memory)]
    assert reader.provenance.base_hash == engine.provenance.base_hash


def test_a_server_is_not_asked_about_another_base_than_the_adapters(
    saved: dict[str, str], build_decoder: Any, tmp_path: Path
) -> None:
    build_decoder(seed=5).save_pretrained(tmp_path / "other")

    with pytest.raises(AdapterError, match="trained on another base"):
        open_reader(saved["adapter"], base=str(tmp_path / "other"), engine=SERVER)


def test_a_missing_llama_cpp_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_cpp", None)

    with pytest.raises(MissingDependencyError, match="not installed") as caught:
        open_llamacpp()
    assert "icae[llamacpp]" in str(caught.value.fix)


def test_torch_and_its_own_answers_are_what_load_gives(saved: dict[str, str]) -> None:
    from icae import engine as api

    reader = open_reader(saved["adapter"], runtime="torch", device="cpu", dtype="float32")
    engine = api.load(saved["adapter"], device="cpu", dtype="float32")
    memory = engine.compress(TEXT, ratio=4)

    assert reader.provenance == engine.provenance
    answer = reader.ask(memory, "Where?", max_new_tokens=4)
    assert answer.text == engine.ask(memory, "Where?", max_new_tokens=4).text
    assert answer.runtime == "torch float32"


@needs_llamacpp
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_memory_made_in_torch_is_read_in_llama_cpp(saved: dict[str, str], dtype: str) -> None:
    from icae import engine as api

    engine = api.load(saved["adapter"], device="cpu", dtype=dtype)
    memory = engine.compress(TEXT, ratio=4)
    reader = open_reader(saved["adapter"], runtime="llamacpp", dtype="float32")

    answer = reader.ask(memory, "Where?", max_new_tokens=6)
    assert answer.runtime == "llamacpp float32"
    assert reader.kv_bytes(10) == 2560
    if dtype == "float32":
        assert answer.text == engine.ask(memory, "Where?", max_new_tokens=6).text
        whole = reader.ask_text(TEXT, "Where?", max_new_tokens=6)
        assert whole.text == engine.ask_text(TEXT, "Where?", max_new_tokens=6).text
        made = reader.reconstruct(memory)
        assert [r.text for r in made] == [r.text for r in engine.reconstruct(memory)]
    writer = reader.maker(memory.provenance.slot_dtype)
    assert writer.append(memory, " the end").tokens > memory.tokens


@needs_llamacpp
def test_llama_cpp_refuses_another_base_than_the_adapters(
    saved: dict[str, str], build_decoder: Any, tokenizer: Any, tmp_path: Path
) -> None:
    build_decoder(seed=5).save_pretrained(tmp_path / "other")
    tokenizer.save_pretrained(tmp_path / "other")

    with pytest.raises(AdapterError, match="trained on another base"):
        open_llamacpp(saved["adapter"], base=str(tmp_path / "other"))


@needs_llamacpp
def test_llama_cpp_refuses_a_base_without_settings(saved: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BaseModelError):
        open_llamacpp(saved["adapter"], base=str(tmp_path / "empty"))


@needs_llamacpp
def test_llama_cpp_refuses_other_settings_than_the_adapters(
    saved: dict[str, str], tmp_path: Path
) -> None:
    record = Path(saved["adapter"]) / "icae.json"
    settings = computation_hash(AutoConfig.from_pretrained(saved["base"]))
    record.write_text(json.dumps(json.loads(record.read_text()) | {"base_settings": settings}))
    open_llamacpp(saved["adapter"])
    config = Path(saved["base"]) / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 0.5}))

    with pytest.raises(AdapterError, match="other settings"):
        open_llamacpp(saved["adapter"])


@needs_llamacpp
def test_llama_cpp_refuses_another_tokenizer_than_the_adapters(
    saved: dict[str, str], build_tokenizer: Any
) -> None:
    other = build_tokenizer()
    other.add_tokens(["<|new|>"])
    other.save_pretrained(saved["base"])

    with pytest.raises(BaseModelError, match="not the one of the adapter"):
        open_llamacpp(saved["adapter"])


def test_a_server_is_not_asked_about_memories_of_keys_and_values(
    of_key_values: dict[str, str],
) -> None:
    with pytest.raises(AdapterError, match="cannot be sent to a vLLM server"):
        open_reader(of_key_values["adapter"], engine=SERVER)


@needs_llamacpp
def test_memories_of_keys_and_values_are_read_in_llama_cpp_without_torch(
    of_key_values: dict[str, str], tmp_path: Path
) -> None:
    from icae import engine as api

    engine = api.load(of_key_values["adapter"], device="cpu", dtype="float32")
    memory = engine.compress(TEXT, ratio=4) + engine.verbatim(" and a thin ring")
    memory.save(tmp_path / "memory.icae")
    reader = open_reader(of_key_values["adapter"], runtime="llamacpp", dtype="float32")
    (found,) = (tmp_path / "cache" / "gguf").glob("*.order.json")

    answer = reader.ask(memory, "Where?", max_new_tokens=6)
    assert answer.runtime == "llamacpp float32"
    assert answer.text == engine.ask(memory, "Where?", max_new_tokens=6).text
    made = reader.reconstruct(memory)
    assert [r.text for r in made] == [r.text for r in engine.reconstruct(memory)]
    writer = reader.maker(memory.provenance.slot_dtype)
    assert writer.append(memory, " the end").tokens > memory.tokens

    code = (
        "import sys, icae; from icae import opening; "
        f"reader = opening.open_llamacpp({of_key_values['adapter']!r}, dtype='float32'); "
        f"memory = icae.Memory.load({str(tmp_path / 'memory.icae')!r}); "
        "print(reader.ask(memory, 'Where?', max_new_tokens=6).text, end=''); "
        "sys.exit(sum(name in sys.modules for name in ('torch', 'transformers', 'peft')))"
    )
    child = [sys.executable, "-c", code]
    done = subprocess.run(child, check=True, capture_output=True, text=True)
    assert done.stdout == answer.text

    found.write_text("{}")
    with pytest.raises(BaseModelError, match="does not say how") as caught:
        open_llamacpp(of_key_values["adapter"], dtype="float32")
    assert "Delete the file" in str(caught.value.fix)
