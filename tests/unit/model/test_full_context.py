from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from icae.config import ModelConfig
from icae.errors import AdapterError, ConfigError, TrainingError
from icae.model import (
    FullContextModel,
    ReaderInfo,
    Sample,
    load_reader,
    read_info,
    read_reader_info,
    reader_hash,
    save_reader,
    weight_hash,
)
from icae.model.objectives import autoencoding, instruction

CONFIG = ModelConfig(lora_rank=4, lora_alpha=8.0)


@pytest.fixture
def decoder(build_decoder: Callable[..., Any]) -> Any:
    return build_decoder()


@pytest.fixture
def reader(decoder: Any) -> FullContextModel:
    """A reader as if trained."""
    model = FullContextModel(decoder, CONFIG)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.trainable().values():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.fixture
def saved(reader: FullContextModel, decoder: Any, tmp_path: Path) -> Path:
    info = ReaderInfo(
        name="upper",
        base_model="tiny-base",
        base_hash=weight_hash(decoder),
        tokenizer_hash="t",
        lora_rank=4,
        lora_alpha=8.0,
        lora_targets="qv",
        data={"questions.jsonl": "4 triplets"},
        metrics={"ft_loss": 1.5},
    )
    return save_reader(reader, info, tmp_path / "reader")


def question(random_ids: Callable[..., Any], *, length: int = 12) -> Sample:
    prompt, answer, context = random_ids(5, 1), random_ids(3, 2), random_ids(length)
    task = instruction(prompt, answer, full_prompt_ids=np.concatenate([context, prompt]))
    return Sample(context_ids=context, ratio=4.0, tasks=(task,))


def test_only_the_lora_is_trained(reader: FullContextModel) -> None:
    assert all(name.startswith("lora.") and "lora_" in name for name in reader.trainable())


def test_the_loss_is_that_of_the_tuned_decoder_on_the_answer_behind_the_full_prompt(
    reader: FullContextModel, random_ids: Callable[..., Any]
) -> None:
    samples = [question(random_ids), question(random_ids, length=30)]
    scores = reader(samples)
    for sample, score in zip(samples, scores, strict=True):
        row = np.concatenate([sample.context_ids, sample.tasks[0].target_ids])
        labels = torch.tensor(row)[None].clone()
        labels[:, :-3] = -100
        direct = reader.decoder(input_ids=torch.tensor(row)[None], labels=labels).loss
        assert float(score.loss_sum.detach()) / 3 == pytest.approx(float(direct.detach()), abs=1e-4)
        assert score.labels == 3


def test_training_moves_the_lora_and_leaves_the_decoder(
    reader: FullContextModel,
    decoder: Any,
    random_ids: Callable[..., Any],
    train: Callable[..., Any],
) -> None:
    before = weight_hash(decoder)
    losses = train(reader, [question(random_ids)], steps=4)
    assert losses[-1] < losses[0]
    assert weight_hash(decoder) == before


def test_recomputed_activations_change_no_gradient(
    decoder: Any, random_ids: Callable[..., Any]
) -> None:
    gradients = []
    for prepare in (lambda m: None, lambda m: m.checkpoint_activations()):
        model = FullContextModel(decoder, CONFIG)
        prepare(model)
        model.train()
        model([question(random_ids)])[0].loss_sum.backward()
        gradients.append([p.grad for n, p in model.trainable().items() if "lora_B" in n])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)
        assert plain.abs().sum() > 0


def test_an_instruction_without_its_full_prompt_is_refused(
    reader: FullContextModel, random_ids: Callable[..., Any]
) -> None:
    context = random_ids(12)
    for task in (instruction(random_ids(4), random_ids(3)), autoencoding(context)):
        with pytest.raises(ConfigError, match="no reading of the full context"):
            reader([Sample(context_ids=context, ratio=4.0, tasks=(task,))])


def test_a_teacher_is_refused(reader: FullContextModel, random_ids: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match="no teacher"):
        reader([question(random_ids)], kl_shares={"ft": 0.5})


def test_a_saved_reader_is_a_standard_peft_folder(saved: Path, decoder: Any) -> None:
    from peft import LoraConfig
    from safetensors.torch import load_file

    assert LoraConfig.from_pretrained(str(saved)).r == 4
    names = load_file(str(saved / "adapter_model.safetensors"))
    assert all("q_proj" in name or "v_proj" in name for name in names)
    card = (saved / "README.md").read_text(encoding="utf-8")
    for text in ("# upper", "compresses nothing", "4 triplets", "ft_loss", "rank, alpha | 4, 8"):
        assert text in card


def test_a_loaded_reader_gives_the_same_losses(
    saved: Path, reader: FullContextModel, decoder: Any, random_ids: Callable[..., Any]
) -> None:
    loaded, info = load_reader(
        saved, decoder, base_model="tiny-base", base_hash=weight_hash(decoder)
    )
    assert info == read_reader_info(saved)
    sample = question(random_ids)
    assert torch.equal(loaded([sample])[0].loss_sum, reader([sample])[0].loss_sum)


def test_a_reader_of_another_base_is_refused(
    saved: Path, build_decoder: Callable[..., Any]
) -> None:
    other = build_decoder(seed=5)
    with pytest.raises(AdapterError, match="trained on another base"):
        load_reader(saved, other, base_model="other", base_hash=weight_hash(other))


def test_a_reader_and_an_adapter_are_never_taken_for_each_other(
    saved: Path, saved_adapter: Path
) -> None:
    with pytest.raises(AdapterError, match="not an adapter folder") as caught:
        read_info(saved)
    assert "--upper-bound" in str(caught.value.fix)
    with pytest.raises(AdapterError, match="is an adapter of icae") as caught:
        read_reader_info(saved_adapter)
    assert "--adapter" in str(caught.value.fix)
    with pytest.raises(AdapterError, match="not the folder of a full-context reader"):
        read_reader_info(saved / "nothing")


@pytest.mark.parametrize("change", [{"format": "x"}, {"version": 2}, {"lora_rank": "four"}])
def test_a_record_that_was_changed_is_refused(saved: Path, change: dict[str, Any]) -> None:
    record = json.loads((saved / "reader.json").read_text())
    (saved / "reader.json").write_text(json.dumps(record | change))
    with pytest.raises(AdapterError):
        read_reader_info(saved)


def test_damaged_weights_are_refused(saved: Path, decoder: Any) -> None:
    digest = reader_hash(saved)
    weights = saved / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert reader_hash(saved) != digest
    with pytest.raises(AdapterError, match="damaged"):
        load_reader(saved, decoder, base_model="tiny-base", base_hash=weight_hash(decoder))
