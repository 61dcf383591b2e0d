"""Teacher-forced scores against a computation written out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from icae.model.objectives import Sample, autoencoding, instruction


def by_hand(model: Any, memory: torch.Tensor, positions: list[int], task: Any) -> torch.Tensor:
    """Log-probabilities [T, V] of one row, from the logits at every place."""
    decoder = model.decoder
    marker = model.tokens.objective(task.objective)
    front = marker[: model.config.front]
    inputs = decoder.get_input_embeddings()(torch.as_tensor(task.input_ids))
    row = torch.cat([front, memory, marker, inputs])[None]
    mask = torch.full((len(positions), len(positions)), -torch.inf).triu(1)
    with torch.no_grad():
        logits = decoder(
            inputs_embeds=row,
            position_ids=torch.tensor([positions]),
            attention_mask=mask[None, None],
            use_cache=False,
        ).logits
    return torch.log_softmax(logits[0, -len(task.target_ids) :], dim=-1)


AROUND = {"framing": "around", "objective_tokens": 2}


@pytest.mark.parametrize(
    ("settings", "positions"),
    [
        ({"layout": "default"}, [*range(16)]),
        ({"layout": "uniform-encoder"}, [*range(16)]),
        ({"layout": "uniform-encoder", **AROUND}, [*range(19)]),
        # Spans of 8 and 5 tokens with 2 slots each, then the objective token at 13.
        ({"layout": "uniform"}, [1, 5, 8, 11, *range(13, 25)]),
        ({"layout": "uniform", **AROUND}, [0, 1, 3, 7, 10, 13, *range(15, 28)]),
    ],
)
def test_scores_equal_a_computation_with_all_logits(build_model, random_ids, settings, positions):
    model = build_model(**settings, span_length=8)
    context = random_ids(13)
    task = instruction(random_ids(5, 1), random_ids(7, 2))
    memory = torch.cat(model.encode_spans([context[:8], context[8:]], [2, 2])).detach()

    with torch.no_grad():
        score = model([Sample(context_ids=context, ratio=4.0, tasks=(task,))])[0]

    log_probs = by_hand(model, memory, positions, task)[5:]  # exactly the answer
    targets = torch.as_tensor(task.target_ids[5:])
    expected = log_probs.gather(1, targets[:, None])[:, 0]
    assert (score.objective, score.labels) == ("ft", 7)
    assert torch.allclose(score.log_probs_T, expected, atol=1e-4)
    assert float(score.loss_sum) == pytest.approx(-float(expected.sum()), abs=1e-3)
    assert score.correct_T.tolist() == (log_probs.argmax(dim=1) == targets).tolist()


def test_logits_are_computed_only_at_labels(build_model, random_ids):
    model = build_model()
    rows: list[int] = []
    model.decoder.get_output_embeddings().register_forward_hook(
        lambda module, inputs, out: rows.append(inputs[0].flatten(0, -2).shape[0])
    )
    task = instruction(random_ids(40), random_ids(3, 1))

    model([Sample(context_ids=random_ids(9), ratio=2.0, tasks=(task, autoencoding(random_ids(9))))])

    assert rows == [3 + 9]


def test_every_family_trains_and_generates(family, build_model, random_ids, train):
    from icae.decode.prefix import Prefix
    from icae.decode.torch import TorchRuntime

    model = build_model(family, trained=False)
    ids = random_ids(20)
    losses = train(model, [Sample(context_ids=ids, ratio=4.0, tasks=(autoencoding(ids),))], 4)
    runtime = TorchRuntime(model)
    parts = tuple(runtime.encode([ids[:16], ids[16:]], [4, 1]))
    prefix = Prefix(parts=parts, spans=((16, 4), (4, 1)), objective="ft")
    made = runtime.generate(prefix, random_ids(3), max_new_tokens=5, stop_ids=())

    assert losses[-1] < losses[0]
    assert [part.slots_KD.shape for part in parts] == [(4, 32), (1, 32)]
    assert len(made.token_ids) == 5


def test_bfloat16_weights_keep_the_trained_weights_in_float32(
    build_model, build_decoder, random_ids, train
):
    model = build_model(decoder=build_decoder().bfloat16(), trained=False)
    ids = random_ids(16)

    losses = train(model, [Sample(context_ids=ids, ratio=4.0, tasks=(autoencoding(ids),))], 3)

    assert {p.dtype for p in model.trainable().values()} == {torch.float32}
    assert {p.dtype for p in model.decoder.parameters()} == {torch.bfloat16}
    assert model.encode_spans([ids], [4])[0].dtype == torch.bfloat16
    assert all(np.isfinite(losses))


def test_a_model_that_is_not_trained_on_computes_in_the_precision_of_its_weights(
    build_model, build_decoder, random_ids
):
    model = build_model(decoder=build_decoder().bfloat16())
    before = model.encode_spans([random_ids(8)], [4])[0].float()
    model.end_training()
    of_lora = {name.startswith("lora."): p.dtype for name, p in model.trainable().items()}
    assert of_lora == {True: torch.bfloat16, False: torch.float32}
    after = model.encode_spans([random_ids(8)], [4])[0].float()
    torch.testing.assert_close(after, before, rtol=0.1, atol=0.1 * float(before.abs().max()))
