"""The one exception tree of the package.

Every error that a user can cause says what was got, what was expected and how
to fix it. The command line prints exactly this text and exits with code 1.
"""

from __future__ import annotations


class IcaeError(Exception):
    """Base class of every error raised on purpose by icae.

    Args:
        message: One line naming the problem.
        got: What was found, in the user's terms.
        expected: What would have been right.
        fix: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        got: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        self.message = message
        self.got = got
        self.expected = expected
        self.fix = fix
        lines = [message]
        for label, value in (("got", got), ("expected", expected), ("fix", fix)):
            if value is not None:
                lines.append(f"  {label + ':':<10}{value}")
        super().__init__("\n".join(lines))


class ConfigError(IcaeError):
    """A setting or recipe is wrong: unknown key, wrong type, value out of range."""


class InputError(IcaeError):
    """The user's document, question or data file cannot be used as it is."""


def require_type(value: object, kind: type, *, what: str, fix: str) -> None:
    """Refuse a value of another type, as Python lets anybody pass it.

    Raises:
        InputError: With what was passed and what to do with it.
    """
    if not isinstance(value, kind):
        got = f"{type(value).__name__} {str(value)[:80]!r}"
        raise InputError(f"That is not {what}.", got=got, expected=what, fix=fix)


class ResultConflictError(InputError):
    """A result file is of another run than the one that would go on in it."""


class BaseModelError(IcaeError):
    """The base language model cannot be found, loaded or adapted."""


class AdapterError(IcaeError):
    """An adapter folder is missing, damaged or made for another base model."""


class MemoryFileError(IcaeError):
    """A memory file is truncated, tampered with, foreign or cannot be written."""


class IncompatibleMemoryError(IcaeError):
    """A memory was made by another decoder, adapter or tokenizer."""


class StoreError(IcaeError):
    """A memory store is missing, in use, damaged, full or cannot be written."""


class MissingMemoryError(StoreError):
    """A memory store holds no memory of that name or key."""


class ConflictError(StoreError):
    """A memory was changed by somebody else since it was read."""


class TrainingError(IcaeError):
    """A training run cannot start, resume or go on."""


class ServiceError(IcaeError):
    """A service on the network refuses requests or cannot be reached."""


class RequestError(IcaeError):
    """A request to the server is refused.

    Args:
        message: One line naming the problem.
        status: HTTP status of the response, 4xx or 5xx.
        code: What went wrong, for programs.
        param: The field of the request that is wrong.
        retry_after_s: Seconds after which it may be tried again.
        got: What was found, in the user's terms.
        expected: What would have been right.
        fix: What to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        code: str = "invalid_request",
        param: str | None = None,
        retry_after_s: int | None = None,
        got: str | None = None,
        expected: str | None = None,
        fix: str | None = None,
    ) -> None:
        super().__init__(message, got=got, expected=expected, fix=fix)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after_s = retry_after_s


class WorkerError(IcaeError):
    """Workers of a run were lost and their work with them."""


class MissingDependencyError(IcaeError):
    """An optional dependency is not installed."""
