"""The OpenAPI document of the server, kept by hand in ``openapi.yaml`` beside this file."""

from __future__ import annotations

from importlib import resources
from typing import Any

import yaml


def openapi_document() -> dict[str, Any]:
    """The document, as `/openapi.json` gives it."""
    text = resources.files("icae.serve").joinpath("openapi.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document
