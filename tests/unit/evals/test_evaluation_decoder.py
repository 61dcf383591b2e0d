"""Teacher forcing and greedy decoding against plain transformers calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from icae.decode.torch import TorchRuntime
from icae.evals.decoding import (
    NO_MEMORY,
    encode_contexts,
    plain_scores,
    score_tasks,
    write_back,
)
from icae.model.objectives import autoencoding, continuation, recall


def direct_losses(decoder: Any, ids: Any, scored: int) -> Any:
    """Token losses of an ordinary transformers call."""
    with torch.no_grad():
        logits = decoder(input_ids=torch.tensor(ids)[None]).logits[0]
    losses = cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="none")
    return losses[-scored:].numpy()


def test_plain_scores_equal_those_of_transformers(
    family: str, build_model: Any, random_ids: Any
) -> None:
    model = build_model(family)
    ids = random_ids(40)
    (score,) = plain_scores(TorchRuntime(model), [recall(ids, given=1)])
    with torch.no_grad():
        row = torch.tensor(ids)[None]
        expected = float(model.decoder(input_ids=row, labels=row).loss)
    assert score.losses_T.mean() == pytest.approx(expected, abs=1e-4)
    assert score.losses_T == pytest.approx(direct_losses(model.decoder, ids, 39), abs=1e-4)


def test_padding_leaves_plain_scores_unchanged(
    family: str, build_model: Any, random_ids: Any
) -> None:
    runtime = TorchRuntime(build_model(family))
    tasks = [
        recall(random_ids(n, i), given=given)
        for i, (n, given) in enumerate([(40, 31), (3, 1), (17, 1), (40, 39)])
    ]
    together = plain_scores(runtime, tasks)
    for task, score in zip(tasks, together, strict=True):
        assert len(score.losses_T) == task.labels
        (alone,) = plain_scores(runtime, [task])
        assert score.losses_T == pytest.approx(alone.losses_T, abs=1e-4)


@pytest.mark.parametrize("layout", ["uniform-encoder", "uniform"])
def test_memory_scores_equal_those_of_the_training_forward_pass(
    build_model: Any, random_ids: Any, layout: str
) -> None:
    from icae.model.objectives import Sample

    model = build_model(layout=layout)
    contexts = [random_ids(40, i) for i in range(3)]
    tasks = [autoencoding(ids) for ids in contexts]
    runtime = TorchRuntime(model)
    memories = encode_contexts(runtime, contexts, ratio=4)
    assert memories[0].spans == ((16, 4), (16, 4), (8, 2))

    scores = score_tasks(runtime, memories, tasks)

    samples = [
        Sample(context_ids=c, ratio=4, tasks=(t,)) for c, t in zip(contexts, tasks, strict=True)
    ]
    with torch.no_grad():
        expected = model(samples)
    for score, wanted in zip(scores, expected, strict=True):
        assert score.losses_T == pytest.approx(-wanted.log_probs_T.numpy(), abs=1e-4)
        assert np.array_equal(score.correct_T, wanted.correct_T.numpy())


def test_without_memory_the_decoder_reads_the_objective_token_alone(
    model: Any, random_ids: Any
) -> None:
    runtime, ids = TorchRuntime(model), random_ids(20)
    (score,) = score_tasks(runtime, [NO_MEMORY], [autoencoding(ids)])

    embed = model.decoder.get_input_embeddings()
    with torch.no_grad():
        row = torch.cat([model.tokens.objective("ae"), embed(torch.tensor(ids[:-1]))])
        logits = model.decoder(inputs_embeds=row[None]).logits[0]
        expected = cross_entropy(logits, torch.tensor(ids), reduction="none")
    assert score.losses_T == pytest.approx(expected.numpy(), abs=1e-4)


def test_padding_leaves_memory_scores_unchanged(model: Any, random_ids: Any) -> None:
    runtime = TorchRuntime(model)
    contexts = [random_ids(n, n) for n in (33, 5, 16)]
    memories = encode_contexts(runtime, contexts, ratio=2)
    tasks = [continuation(random_ids(n, n + 1)) for n in (3, 12, 7)]
    together = score_tasks(runtime, memories, tasks)
    for i, score in enumerate(together):
        alone = encode_contexts(runtime, [contexts[i]], ratio=2)
        (expected,) = score_tasks(runtime, alone, [tasks[i]])
        assert score.losses_T == pytest.approx(expected.losses_T, abs=1e-4)


@pytest.mark.parametrize("layout", ["uniform-encoder", "uniform"])
def test_whole_contexts_are_written_back_as_one_by_one(
    build_model: Any, random_ids: Any, layout: str
) -> None:
    runtime = TorchRuntime(build_model(layout=layout))
    contexts = [random_ids(40, i) for i in range(3)]
    memories = encode_contexts(runtime, contexts, ratio=4)

    written = write_back(runtime, memories)

    nothing = np.array([], dtype=np.int64)
    for memory, ids in zip(memories, written, strict=True):
        prefix = memory.prefix(runtime, "ae")
        made = runtime.generate(prefix, nothing, max_new_tokens=40, stop_ids=())
        assert ids == made.token_ids
