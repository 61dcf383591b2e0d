"""`icae serve` and `icae serve-key`: the HTTP server and the keys to it."""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from icae.cli import console, engine
from icae.cli.command import Outcome, command
from icae.cli.options import ModelOptions, Ratio
from icae.cli.vllm_options import EngineModel, EngineUrl, engine_address, with_secret
from icae.config.spans import check_ratio
from icae.errors import MissingDependencyError

if TYPE_CHECKING:
    from icae.serve.keys import Keys
    from icae.serve.limits import Limits
    from icae.serve.listening import Address

KeyFile = Annotated[
    Path | None,
    Option(
        "--keys",
        metavar="PATH",
        help="Key file, made with `icae serve-key`; every request then needs a key, and each "
        "key has its own memories.",
        show_default="no keys, this machine alone",
    ),
]
LongestMessage = Annotated[
    int | None,
    Option(
        min=1,
        metavar="N",
        help="Read messages of more than N tokens as memory.",
        show_default="never",
    ),
]
KvCache = Annotated[
    float,
    Option(
        min=0.001,
        metavar="N",
        help="Most MB of key-value caches kept of memories that were asked.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """Where the server listens, who may use it, and what it takes on."""

    store: Annotated[
        str, Option("--store", "-s", metavar="PATH", help="Where memories are kept.")
    ] = "icae-server.db"
    host: Annotated[str, Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, metavar="N", help="Port; 0 for a free one.")] = (
        8000
    )
    keys: KeyFile = None
    auto_compress: LongestMessage = None
    ratio: Ratio = 4.0
    max_body_mb: Annotated[float, Option(min=0.001, metavar="N", help="Largest body, in MB.")] = (
        10.0
    )
    max_waiting: Annotated[
        int, Option(min=1, metavar="N", help="Most chats that wait; more get 429.")
    ] = 64
    max_per_key: Annotated[
        int, Option(min=1, metavar="N", help="Most requests of a key at a time.")
    ] = 32
    max_new_tokens: Annotated[int, Option(min=1, metavar="N", help="Longest answer in tokens.")] = (
        1024
    )
    kv_cache_mb: KvCache = 512.0
    timeout: Annotated[
        float, Option(min=1, metavar="S", help="Longest time for an answer, in seconds.")
    ] = 300.0
    grace: Annotated[
        float, Option(min=1, metavar="S", help="Seconds to finish requests when told to end.")
    ] = 30.0
    engine: EngineUrl = None
    engine_model: EngineModel = None

    def limits(self) -> Limits:
        """What the server takes on."""
        from icae.serve.limits import Limits

        return Limits(
            body_bytes=int(self.max_body_mb * 1_000_000),
            waiting=self.max_waiting,
            per_owner=self.max_per_key,
            answer_tokens=self.max_new_tokens,
            request_seconds=self.timeout,
            kept_bytes=int(self.kv_cache_mb * 1_000_000),
        )

    def access(self) -> tuple[Keys, Address]:
        """Who may use the server, and where it listens.

        Raises:
            ConfigError: If the keys cannot be read, or anybody could use the server.
        """
        from icae.serve.keys import HashedKeys, NoKeys
        from icae.serve.listening import Address, check_public

        known = NoKeys() if self.keys is None else HashedKeys.load(self.keys)
        address = Address(host=self.host, port=self.port)
        check_public(address, known)
        return known, address


@command
def serve(*, options: ServerOptions, model: ModelOptions) -> Outcome:
    """Serve chats and memories over HTTP to OpenAI clients, until told to end."""
    check_ratio(options.ratio)
    _require_extra()
    from icae.serve.app import make_app
    from icae.serve.listening import listen, make_server
    from icae.serve.service import Service
    from icae.store import create_store

    keys, address = options.access()
    server = engine_address(options.engine, options.engine_model)
    start = time.perf_counter()
    with create_store(options.store) as store, listen(address) as sock:
        icae, vllm = model.load(), None
        if server is not None:
            vllm = engine.connect_engine(icae, with_secret(server), adapter=model.adapter)
        service = Service(
            icae,
            store,
            keys=keys,
            limits=options.limits(),
            longest_message=options.auto_compress,
            ratio=options.ratio,
            vllm=vllm,
        )
        host = f"[{address.host}]" if ":" in address.host else address.host
        root = f"http://{host}:{sock.getsockname()[1]}"
        url = f"{root}/v1"
        console.note(f"Serving {service.model} at {url}; to try it: {root}/. Ctrl-C ends it.")
        app = make_app(service, local_only=not keys.required, grace_s=options.grace)
        make_server(app, grace_s=options.grace).run(sockets=[sock])
    seconds = round(time.perf_counter() - start, 3)
    return Outcome(payload={"url": url, "model": service.model, "seconds": seconds})


@command
def serve_key(
    *,
    name: Annotated[
        str, Argument(metavar="NAME", help="Whose key it is: the owner of its memories.")
    ],
    keys: Annotated[Path, Option(metavar="PATH", help="Key file; made if there is none.")] = Path(
        "keys.txt"
    ),
) -> Outcome:
    """Make an API key, print it once, and add its hash to a key file."""
    from icae.serve.keys import add_key

    key = add_key(keys, name)
    return Outcome(
        payload={"name": name, "key": key, "keys": str(keys)},
        show=lambda: console.write_text(f"{key}\n"),
    )


def _require_extra() -> None:
    needed = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            "The server needs packages that are not installed.",
            got=f"no {', '.join(missing)}",
            expected="the [server] extra",
            fix="pip install 'icae[server]'",
        )
