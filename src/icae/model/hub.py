"""The Hugging Face Hub: models, adapters and memories by their id there, down and up.

An id is ``user/name``, with ``@revision`` (a branch, tag or commit) where one is meant.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from icae.errors import AdapterError, BaseModelError, IcaeError, InputError
from icae.model.base_files import BASE_NAMES

BASE_FILES = ("*.json", "*.safetensors", "*.jinja")
"""Files of a base model that are downloaded."""

ADAPTER_FILES = ("*.json", "*.safetensors", "*.md")
"""Files of an adapter that are downloaded and pushed."""

TIMEOUT = 10.0
"""Seconds that the Hub has to say whether it has a base."""

_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether a name that is no path here can be an id of the Hub."""
    return _ID.fullmatch(name) is not None and not Path(name).exists()


def split_id(name: str) -> tuple[str, str | None]:
    """An id and its revision, None if it names none."""
    repository, at, revision = name.partition("@")
    return repository, revision if at else None


def base_snapshot(name: str, patterns: Sequence[str] = BASE_FILES) -> Path:
    """Folder of a hub model: as it was downloaded before, else downloaded now.

    Raises:
        BaseModelError: If it cannot be had.
    """
    with _explained(BaseModelError, f"Cannot load the base model {name}.", BASE_NAMES):
        return _snapshot(name, patterns)


def require_found(name: str) -> None:
    """Raise what the Hub's client does for a base that is neither here nor there.

    After one request: without a network it tries each file six times, for most of a minute.
    """
    import huggingface_hub

    here = Path(name).exists() or huggingface_hub.try_to_load_from_cache(name, "config.json")
    if not here and not huggingface_hub.is_offline_mode():
        huggingface_hub.HfApi(endpoint=_endpoint()).model_info(name, timeout=TIMEOUT)


def adapter_snapshot(name: str) -> Path:
    """Folder of an adapter on the Hub: as it was downloaded before, else downloaded now.

    Raises:
        AdapterError: If it cannot be had.
    """
    with _explained(AdapterError, f"Cannot load the adapter {name}."):
        return _snapshot(name, ADAPTER_FILES)


def push(path: Path, name: str, *, private: bool = False) -> str:
    """Put an adapter folder, or a memory file, into a repository of the Hub, made if need be.

    Returns:
        Address of the commit.

    Raises:
        InputError: If the name is not ``user/name``, or it cannot be pushed there.
    """
    import huggingface_hub

    repository, revision = split_id(name)
    if revision is not None or _ID.fullmatch(name) is None:
        raise InputError("This is no repository to push to.", got=name, expected="user/name")
    api = huggingface_hub.HfApi(endpoint=_endpoint())
    with _explained(InputError, f"Cannot push to {repository}."):
        api.create_repo(repository, private=private, exist_ok=True)
        if path.is_dir():
            made = api.upload_folder(
                repo_id=repository,
                folder_path=path,
                allow_patterns=list(ADAPTER_FILES),
                commit_message=f"Adapter {path.name}",
            )
        else:
            made = api.upload_file(
                repo_id=repository,
                path_or_fileobj=path,
                path_in_repo=path.name,
                commit_message=f"Memory {path.name}",
            )
    return str(made.commit_url)


def _snapshot(name: str, patterns: Sequence[str]) -> Path:
    import huggingface_hub

    repository, revision = split_id(name)
    download = partial(
        huggingface_hub.snapshot_download,
        repository,
        revision=revision,
        allow_patterns=list(patterns),
    )
    try:
        return Path(download(local_files_only=True))
    except (OSError, ValueError):  # not there yet
        return Path(download(endpoint=_endpoint()))


def _endpoint() -> str | None:
    """Address of the Hub, where the environment names another."""
    return os.environ.get("HF_ENDPOINT")


@contextmanager
def _explained(
    error_type: type[IcaeError], message: str, expected: str = "a folder, or user/name[@revision]"
) -> Iterator[None]:
    """What the Hub's client raises becomes an explained error."""
    try:
        yield
    except Exception as error:
        # The Hub's own errors are OSErrors; those of a connection are its HTTP library's.
        of_connection = any(c.__module__.startswith("httpx") for c in type(error).__mro__)
        if not isinstance(error, OSError | ValueError) and not of_connection:
            raise
        status = getattr(getattr(error, "response", None), "status_code", None)
        got = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if status in (401, 403):
            fix = "Log in with `hf auth login`, or set HF_TOKEN to a token that may do this."
        elif status == 404:
            fix = "Check the id and the revision; what is private needs a token (HF_TOKEN)."
        else:
            fix = "Check the name and the connection."
        raise error_type(message, got=got, expected=expected, fix=fix) from error
