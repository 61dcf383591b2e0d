"""Weights of the public ICAE code, against reference values that its own model gave."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from icae.cli.app import app
from icae.config.asking import AskingConfig
from icae.decode.prefix import Prefix
from icae.engine import load
from icae.errors import AdapterError, InputError
from icae.memory import Memory
from icae.model.base import load_decoder, load_tokenizer
from icae.model.icae import IcaeModel
from icae.model.objectives import autoencoding, continuation, instruction
from icae.model.official import OfficialForm, from_official, read_official, to_official
from icae.model.prompts import tokenize

OFFICIAL = Path(__file__).resolve().parents[4] / "shared" / "official"
pytestmark = pytest.mark.skipif(
    not (OFFICIAL / "expected.npz").is_file(),
    reason="the reference values of the public ICAE code are not beside the checkout",
)


@pytest.fixture(scope="module")
def mistral():
    return load_tokenizer(str(OFFICIAL / "base"))


@pytest.fixture
def decoder():
    return load_decoder(str(OFFICIAL / "base"), dtype=torch.float32, device="cpu")


@pytest.fixture
def model(decoder, mistral):
    tensors = read_official(OFFICIAL / "release.safetensors")
    return from_official(tensors, decoder, mistral, OfficialForm())


@pytest.fixture(scope="module")
def expected():
    with np.load(OFFICIAL / "expected.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def names_of(expected: dict[str, Any]) -> list[str]:
    return sorted({name.partition("/")[0] for name in expected if "/" in name})


@torch.no_grad()
def test_slots_and_log_probabilities_are_those_of_the_public_code(model, expected, mistral):
    asking = model.config.asking
    texts = json.loads((OFFICIAL / "texts.json").read_text())
    question, answer, following = (
        expected[name] for name in ("question_ids", "answer_ids", "next_ids")
    )
    prompt = np.concatenate([question, asking.behind])
    plain = IcaeModel(
        model.decoder, replace(model.config, asking=AskingConfig(continuation="nothing"))
    )
    names = names_of(expected)
    assert len(names) == len(texts) == 7
    for name in names:
        own = {
            key: expected[f"{name}/{key}"]
            for key in (
                "ids",
                "slots",
                "ae_target_log_probs",
                "ae_argmax",
                "ft_target_log_probs",
                "ft_argmax",
                "lm_plain_target_log_probs",
                "lm_token_target_log_probs",
            )
        }
        begin = [] if name.endswith("nobos") else list(asking.begin)
        assert own["ids"].tolist() == [*begin, *tokenize(mistral, texts[name])]
        (memory,) = model.encode([own["ids"]], [1.0])
        np.testing.assert_allclose(memory.slots_KD.numpy(), own["slots"], atol=1e-5, rtol=0)
        tasks = {
            "ae": autoencoding(np.concatenate([own["ids"], asking.written_end])),
            "ft": instruction(
                prompt, np.concatenate([answer, asking.stop])[: len(own["ft_argmax"])]
            ),
            "lm_token": continuation(following),
        }
        for kind, task in tasks.items():
            (score,) = model.score([memory], [task])
            found = score.log_probs_T.numpy()
            np.testing.assert_allclose(found, own[f"{kind}_target_log_probs"], atol=1e-5, rtol=0)
            if f"{kind}_argmax" in own:
                (logits_TV,) = model.label_logits([memory], [task])
                assert logits_TV.argmax(-1).tolist() == own[f"{kind}_argmax"].tolist()
        (score,) = plain.score([memory], [continuation(following)])
        found = score.log_probs_T.numpy()
        np.testing.assert_allclose(found, own["lm_plain_target_log_probs"], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The adapter that the command makes of the published file."""
    made = tmp_path_factory.mktemp("official") / "adapter"
    file = str(OFFICIAL / "release.safetensors")
    command = ["import", "official", file, "--base", str(OFFICIAL / "base"), "-o", str(made)]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert (said["slots"], said["tensors"]) == (128, 9)
    return made


@pytest.fixture(scope="module")
def engine(folder):
    return load(folder, device="cpu", dtype="float32")


def test_its_own_number_of_slots_and_its_greedy_answers_are_those_of_the_public_code(
    engine, expected, folder, tmp_path, monkeypatch
):
    texts = json.loads((OFFICIAL / "texts.json").read_text())
    prompt_ids = np.concatenate([expected["question_ids"], engine.config.asking.behind])
    for name in (name for name in names_of(expected) if not name.endswith("nobos")):
        memory = engine.compress(texts[name], verify=False)
        segments = -(-len(expected[f"{name}/ids"]) // 512)
        assert [span.slots for span in memory.spans] == [128] * segments
        made = engine.runtime.generate(
            engine.decoder.asked(memory),
            prompt_ids,
            max_new_tokens=16,
            stop_ids=engine.answerer.stop_ids,
        )
        assert list(made.token_ids) == expected[f"{name}/ft_greedy"].tolist()
        written = engine.runtime.generate(
            Prefix.of_memory(memory, "ae"), prompt_ids[:0], max_new_tokens=32, stop_ids=(2,)
        )
        assert list(written.token_ids) == expected[f"{name}/ae_greedy"].tolist()
    memory.save(tmp_path / "kept.icae")
    assert Memory.load(tmp_path / "kept.icae") == memory
    (tmp_path / "short.txt").write_text(texts["short40"])
    for command in (["compress", "short.txt", "-o", "short.icae"], ["store", "add", "short.txt"]):
        monkeypatch.chdir(tmp_path)
        options = ["--adapter", str(folder), "--device", "cpu", "--dtype", "float32"]
        store = ["-s", "kept.db"] if command[0] == "store" else []
        result = CliRunner().invoke(app, [*command, *store, *options])
        assert result.exit_code == 0, result.output
    assert Memory.load(tmp_path / "short.icae").slot_count == 128
    with pytest.raises(InputError, match="as many slots"):
        engine.compress(texts["short40"], ratio=4)


def test_an_adapter_is_exported_as_it_was_imported_and_no_other_is(
    engine, mistral, tmp_path, build_engine
):
    model = engine.runtime.model
    assert isinstance(model, IcaeModel)
    to_official(model, mistral, tmp_path / "again.safetensors")
    before = load_file(OFFICIAL / "release.safetensors")
    after = load_file(tmp_path / "again.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    other = build_engine().runtime.model
    assert isinstance(other, IcaeModel)
    with pytest.raises(AdapterError, match="cannot read this adapter") as refused:
        to_official(other, mistral, tmp_path / "other.safetensors")
    assert "model.slot_head: residual" in str(refused.value.got)


LORA = "icae.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({LORA: None}, LORA),
        ({"icae.extra": torch.zeros(2)}, "icae.extra (2,)"),
        ({LORA: torch.zeros(8, 16)}, f"{LORA} (8, 16)"),
        ({"memory_token_embed.weight": torch.zeros(131, 64)}, "(131, 64)"),
        ({"memory_token_embed.weight": None}, "[K + 3, hidden size]"),
    ],
)
def test_a_file_with_other_tensors_is_refused_by_their_names(decoder, mistral, change, said):
    tensors = read_official(OFFICIAL / "release.safetensors") | change
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    with pytest.raises(AdapterError) as refused:
        from_official(kept, decoder, mistral, OfficialForm())
    assert said in f"{refused.value.got} {refused.value.expected}"


@torch.no_grad()
def test_a_question_of_the_first_generation_ends_with_its_token_again(
    decoder, mistral, tmp_path, random_ids
):
    frozen = {"icae.base_model.model.model.embed_tokens.weight": 0.0}
    file = tmp_path / "llama.pt"
    torch.save(read_official(OFFICIAL / "release.safetensors") | frozen, file)
    model = from_official(read_official(file), decoder, mistral, OfficialForm(generation=1))
    (memory,) = model.encode([random_ids(40)], [1.0])
    prompt_ids, answer_ids = random_ids(5), random_ids(3)
    assert model.config.asking.stop == (1,)
    row = model.row(memory, instruction(prompt_ids, answer_ids))
    marker_1D = model.markers("ft")
    embed = model.decoder.get_input_embeddings()
    asked = [marker_1D, embed(torch.from_numpy(prompt_ids)), marker_1D]
    assert row.inputs_FD is not None
    torch.testing.assert_close(row.inputs_FD, torch.cat([memory.slots_KD, *asked]))
    assert list(row.positions) == list(range(128 + 1 + 5 + 1 + 2))
    assert row.ids.tolist() == answer_ids[:-1].tolist()
