"""What stands around the layers of a causal LM: the embeddings before them, the head behind them.

Shape legend: R rows, S inputs of the longest, P places that a cache and these fill, T scored
targets, D hidden size, V vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def body_of(model: PreTrainedModel) -> nn.Module:
    """The layers of a causal LM with its embeddings and last norm, without its head."""
    embeddings = model.get_input_embeddings()
    named: nn.Module = model.base_model
    if named is not model:
        return named
    return next(child for child in model.children() if embeddings in child.modules())


def run_layers(
    model: PreTrainedModel,
    inputs_RSD: Tensor,
    positions_RS: Tensor,
    *,
    cache: DynamicCache | None = None,
    mask_RP: Tensor | None = None,
) -> Tensor:
    """Last hidden states [R, S, D] of inputs at positions; a cache is read first, and filled.

    Rows padded on the right need no mask: causal attention cannot look there. The mask of ones
    that stands for none is not decoration: without it transformers 5 reads positions that jump as
    packed sequences and cuts attention there.
    """
    if mask_RP is None:
        before = 0 if cache is None else cache.get_seq_length()
        mask_RP = positions_RS.new_ones(len(inputs_RSD), before + inputs_RSD.shape[1])
    hidden_RSD: Tensor = body_of(model)(
        inputs_embeds=inputs_RSD,
        attention_mask=mask_RP,
        position_ids=positions_RS,
        past_key_values=cache,
        use_cache=cache is not None,
    ).last_hidden_state
    return hidden_RSD


class PassEnded(Exception):  # noqa: N818 (no error)
    """A forward pass has made what was wanted of it."""


def output_of(model: PreTrainedModel, layer: int, run: Callable[[], object]) -> Any:
    """What a layer gives in a pass, which ends there: a tensor, or in a tuple with others."""
    found: list[Any] = []

    def stop(module: nn.Module, given: object, output: object) -> None:
        found.append(output)
        raise PassEnded

    hook = layers_of(model)[layer].register_forward_hook(stop)
    try:
        with suppress(PassEnded):
            run()
    finally:
        hook.remove()
    return found[0]


@contextmanager
def first_layers_given(model: PreTrainedModel, layers: int, output: object) -> Iterator[None]:
    """So many first layers compute nothing and give what the last of them gave."""
    first = [vars(layer) for layer in layers_of(model)[:layers]]
    before = [{key: own[key] for key in ("forward",) if key in own} for own in first]
    for own in first:
        own["forward"] = lambda *inputs, **named: output
    try:
        yield
    finally:
        for own, forward in zip(first, before, strict=True):
            del own["forward"]
            own.update(forward)  # one that something has put around that of the class


def embed(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Token ids as decoder inputs [..., D]: embeddings that give what the ids themselves give.

    A base may multiply embeddings that it looks up and not those that it is given.
    """
    scale = input_scale(model)
    inputs: Tensor = model.get_input_embeddings()(ids)
    return inputs if scale == 1 else inputs * scale


def input_scale(model: PreTrainedModel) -> float:
    """What a base multiplies embeddings by that it looks up; found once, kept with them."""
    kept = vars(model.get_input_embeddings())
    if "icae_scale" not in kept:
        kept["icae_scale"] = _scale(model)
    scale: float = kept["icae_scale"]
    return scale


@torch.no_grad()
def _scale(model: PreTrainedModel) -> float:
    """First layer's input for token ids, in units of that for their embeddings."""
    lookup = model.get_input_embeddings()
    ids = torch.linspace(0, len(lookup.weight) - 1, 16, device=lookup.weight.device).long()[None]
    seen = first_inputs(model, {"input_ids": ids}, {"inputs_embeds": lookup(ids)})
    if not seen:
        return 1.0
    looked_up, given = (own.double() for own in seen)
    scale = float((looked_up * given).sum() / given.square().sum())
    return 1.0 if abs(scale - 1) < 1e-3 else scale


def first_inputs(model: PreTrainedModel, *inputs: dict[str, Tensor]) -> list[Tensor]:
    """What the first layer receives for each of some inputs; of a model without layers nothing."""
    seen: list[Tensor] = []
    layers = layers_of(model)
    if not layers:
        return seen
    hook = layers[0].register_forward_pre_hook(
        lambda _, given, named: seen.append([*given, *named.values()][0]), with_kwargs=True
    )
    try:
        for own in inputs:
            body_of(model)(**own, use_cache=False)
    finally:
        hook.remove()
    return seen


def layers_of(tree: nn.Module) -> list[nn.Module]:
    """The transformer layers of a model, in order."""
    return [m for m in tree.modules() if isinstance(m, GradientCheckpointingLayer)]


@torch.no_grad()
def input_table(model: PreTrainedModel) -> Tensor:
    """What `embed` gives for every token id, [V, D]."""
    weight = model.get_input_embeddings().weight
    return embed(model, torch.arange(len(weight), device=weight.device))


class _Output:
    """What layers give: last hidden states, and nothing else that a head may ask for."""

    def __init__(self, hidden_1TD: Tensor) -> None:
        self.last_hidden_state = hidden_1TD

    def __getitem__(self, at: Any) -> Any:
        return (self.last_hidden_state,)[at]

    def __getattr__(self, name: str) -> None:
        return None


class _Given(nn.Module):
    """Stands where a causal LM has its layers: their output is given, not computed."""

    def __init__(self, body: nn.Module, hidden_1TD: Tensor) -> None:
        super().__init__()
        self.body = (body,)  # in a tuple: none of its own
        self.output = _Output(hidden_1TD)

    def forward(self, *inputs: object, **named: object) -> _Output:
        """The given output, whatever the inputs are."""
        return self.output

    def __getattr__(self, name: str) -> Any:
        """What a head reads of the layers' module beside their output."""
        return getattr(self.__dict__["body"][0], name)


def vocabulary_logits(decoder: PreTrainedModel, hidden_TD: Tensor) -> Tensor:
    """Logits [T, V] of last hidden states, float32, as the model's own forward makes them.

    What a model does behind its layers (scale, bias, capping) is its own code, run with the
    hidden states in place of its layers.
    """
    head = copy.copy(decoder)
    body = body_of(decoder)
    given = _Given(body, hidden_TD[None])
    head._modules = {name: given if m is body else m for name, m in decoder._modules.items()}
    logits_TV: Tensor = head(inputs_embeds=hidden_TD[None], use_cache=False).logits[0]
    return logits_TV.float()
