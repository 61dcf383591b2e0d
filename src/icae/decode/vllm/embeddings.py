"""Token ids as input embeddings, read from the base model's files row by row.

Over HTTP vLLM takes a prompt that is embeds as a whole, so tokens are embedded here.
Shape legend: N tokens, D hidden size, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

from icae.config.types import FloatArray, TokenIds
from icae.decode.checkpoint import BaseFolder, CheckpointTensor
from icae.errors import BaseModelError

EMBEDDINGS = {
    "llama": "model.embed_tokens.weight",
    "mistral": "model.embed_tokens.weight",
    "qwen2": "model.embed_tokens.weight",
    "qwen3": "model.embed_tokens.weight",
    "gpt_neox": "gpt_neox.embed_in.weight",
}
"""`model_type` of transformers -> its matrix of input embeddings, which is read as it stands.

Not every family belongs here: some scale the rows before the first layer."""


@dataclass(frozen=True, kw_only=True)
class InputEmbeddings:
    """The matrix of input embeddings of a base model, on disk.

    Attributes:
        matrix_VD: The tensor.
    """

    matrix_VD: CheckpointTensor

    @classmethod
    def of(cls, folder: BaseFolder) -> InputEmbeddings:
        """Find the matrix of a base model.

        Raises:
            BaseModelError: If the family is not known, or the matrix is not there.
        """
        family = str(folder.config.get("model_type"))
        name = EMBEDDINGS.get(family)
        if name is None or name not in folder.tensors:
            raise BaseModelError(
                "It is not known how this base model embeds tokens.",
                got=f"{family}, without {name}" if name else family,
                expected=", ".join(EMBEDDINGS),
                fix="Use --runtime torch.",
            )
        return cls(matrix_VD=folder.tensors[name])

    @property
    def vocabulary(self) -> int:
        """Number of tokens V."""
        return self.matrix_VD.shape[0]

    @property
    def hidden_size(self) -> int:
        """Width D of a row."""
        return self.matrix_VD.shape[1]

    def rows(self, token_ids: TokenIds) -> FloatArray:
        """The embeddings [N, D] of tokens, float32."""
        return self.matrix_VD.rows(token_ids)
