from __future__ import annotations

from typing import Any

from icae.config.parsing import to_dict
from icae.model import AdapterInfo
from icae.model.card import model_card


def test_a_bare_adapter_gets_a_card_that_claims_nothing(model: Any) -> None:
    info = AdapterInfo(
        name="bare", base_model="org/b", base_hash="1" * 64, tokenizer_hash="2" * 64,
        model=model.config,
    )  # fmt: skip

    card = model_card(to_dict(info))

    assert card.startswith("---\nlicense:")
    assert "Nothing was measured" in card
    assert "Not recorded." in card
    assert "`1111111111111111`" in card
    assert "| code | `unknown` |" in card
