"""What every trained model here is: a LoRA beside a frozen decoder."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from icae.config import ModelConfig
from icae.model.encoder import wrap_lora


class AdaptedDecoder(nn.Module):
    """A frozen base model and a LoRA that reads its weights.

    Args:
        decoder: The base model; frozen in place and never modified.
        config: Rank, alpha and targets of the LoRA are read, the rest is kept.
        seed: Seed of the new weights.
    """

    def __init__(self, decoder: PreTrainedModel, config: ModelConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        decoder.requires_grad_(False)
        decoder.eval()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.lora = wrap_lora(decoder, config)
        # Held in a tuple: its weights are registered once, through the LoRA's tree.
        self._decoder: tuple[PreTrainedModel, ...] = (decoder,)

    @property
    def decoder(self) -> PreTrainedModel:
        """The frozen base model; its module tree holds no LoRA."""
        return self._decoder[0]

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.decoder.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the frozen base weights."""
        return self.decoder.get_input_embeddings().weight.dtype

    def trainable(self) -> dict[str, nn.Parameter]:
        """The trained weights by name; those of the LoRA start with ``lora.``."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def fixed_state(self) -> dict[str, Tensor]:
        """State that is not all trained but belongs to the weights: none."""
        return {}

    def load_fixed_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `fixed_state` gave."""
