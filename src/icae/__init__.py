"""icae: carry a long context in a quarter of the tokens, without changing the LLM.

The public API is `load`, `compress`, `ask` and `reconstruct` (see `icae.engine`), `open_reader`
(see `icae.opening`), `Conversation`, and `Memory` and `locked` (see `icae.memory`). Importing this
package imports neither torch nor transformers; the first use of a model does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = [
    "Conversation",
    "Engine",
    "IcaeError",
    "Memory",
    "Reader",
    "__version__",
    "ask",
    "compress",
    "load",
    "locked",
    "open_reader",
    "reconstruct",
]

if TYPE_CHECKING:
    from icae.decode.conversation import Conversation
    from icae.decode.reader import Reader
    from icae.engine import Engine, ask, compress, load, reconstruct
    from icae.errors import IcaeError
    from icae.memory import Memory, locked
    from icae.opening import open_reader

    __version__: str

_HOME = {
    "Conversation": "icae.decode.conversation",
    "Engine": "icae.engine",
    "ask": "icae.engine",
    "compress": "icae.engine",
    "load": "icae.engine",
    "reconstruct": "icae.engine",
    "IcaeError": "icae.errors",
    "Memory": "icae.memory",
    "Reader": "icae.decode.reader",
    "locked": "icae.memory",
    "open_reader": "icae.opening",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use, so that `import icae` stays light."""
    if name == "__version__":  # of the installed package; 50 ms that few need
        from importlib.metadata import version

        return version("icae")
    if name not in _HOME:
        raise AttributeError(f"module 'icae' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)
