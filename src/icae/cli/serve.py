"""`icae serve` and `icae serve-key`: the HTTP server and the keys to it."""

from __future__ import annotations

import importlib.util
import time
from pathlib import Path
from typing import Annotated

import typer

from icae.cli import console, engine
from icae.cli.options import Adapter, AsJson, Base, Device, Dtype, Ratio
from icae.cli.outcome import Outcome, reported
from icae.cli.vllm_options import EngineModel, EngineUrl, engine_address, with_secret
from icae.config.spans import check_ratio
from icae.errors import MissingDependencyError

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--keys",
        metavar="PATH",
        help="Key file, made with `icae serve-key`; every request then needs a key, and each "
        "key has its own memories.",
        show_default="no keys, this machine alone",
    ),
]


@reported
def serve(
    store: Annotated[
        str,
        typer.Option("--store", "-s", metavar="PATH", help="Where memories are kept."),
    ] = "icae-server.db",
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, metavar="N", help="Port; 0 for a free one.")
    ] = 8000,
    keys: KeyFile = None,
    auto_compress: Annotated[
        int | None,
        typer.Option(
            "--auto-compress",
            min=1,
            metavar="N",
            help="Read messages of more than N tokens as memory.",
            show_default="never",
        ),
    ] = None,
    ratio: Ratio = 4.0,
    max_body_mb: Annotated[
        float, typer.Option("--max-body-mb", min=0.001, metavar="N", help="Largest body, in MB.")
    ] = 10.0,
    max_waiting: Annotated[
        int,
        typer.Option(
            "--max-waiting", min=1, metavar="N", help="Most chats that wait; more get 429."
        ),
    ] = 64,
    max_per_key: Annotated[
        int,
        typer.Option("--max-per-key", min=1, metavar="N", help="Most requests of a key at a time."),
    ] = 32,
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, metavar="N", help="Longest answer in tokens.")
    ] = 1024,
    kv_cache_mb: Annotated[
        float,
        typer.Option(
            "--kv-cache-mb",
            min=0.001,
            metavar="N",
            help="Most MB of key-value caches kept of memories that were asked.",
        ),
    ] = 512.0,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", min=1, metavar="S", help="Longest time for an answer, in seconds."
        ),
    ] = 300.0,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", min=1, metavar="S", help="Seconds to finish requests when told to end."
        ),
    ] = 30.0,
    engine_url: EngineUrl = None,
    engine_model: EngineModel = None,
    adapter: Adapter = None,
    base: Base = None,
    device: Device = None,
    dtype: Dtype = None,
    as_json: AsJson = False,
) -> Outcome:
    """Serve chats and memories over HTTP to OpenAI clients, until told to end."""
    check_ratio(ratio)
    _require_extra()
    from icae.serve.app import make_app
    from icae.serve.keys import HashedKeys, NoKeys
    from icae.serve.limits import Limits
    from icae.serve.listening import Address, check_public, listen, make_server
    from icae.serve.service import Service
    from icae.store import create_store

    limits = Limits(
        body_bytes=int(max_body_mb * 1_000_000),
        waiting=max_waiting,
        per_owner=max_per_key,
        answer_tokens=max_new_tokens,
        request_seconds=timeout,
        kept_bytes=int(kv_cache_mb * 1_000_000),
    )
    known = NoKeys() if keys is None else HashedKeys.load(keys)
    address = Address(host=host, port=port)
    check_public(address, known)
    server = engine_address(engine_url, engine_model)
    start = time.perf_counter()
    with create_store(store) as opened, listen(address) as sock:
        with console.status("Loading the model"):
            icae = engine.open_engine(adapter=adapter, base=base, device=device, dtype=dtype)
            decoder = (
                None
                if server is None
                else engine.connect_engine(icae, with_secret(server), adapter=adapter)
            )
        service = Service.over(
            icae,
            opened,
            keys=known,
            limits=limits,
            longest_message=auto_compress,
            ratio=ratio,
            vllm=decoder,
        )
        app = make_app(service, local_only=not known.required, grace_s=grace)
        shown = f"[{host}]" if ":" in host else host
        root = f"http://{shown}:{sock.getsockname()[1]}"
        url = f"{root}/v1"
        console.note(f"Serving {service.model} at {url}; to try it: {root}/. Ctrl-C ends it.")
        make_server(app, grace_s=grace).run(sockets=[sock])
    seconds = round(time.perf_counter() - start, 3)
    return Outcome(payload={"url": url, "model": service.model, "seconds": seconds})


@reported
def serve_key(
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="Whose key it is: the owner of its memories."),
    ],
    keys: Annotated[
        Path, typer.Option("--keys", metavar="PATH", help="Key file; made if there is none.")
    ] = Path("keys.txt"),
    as_json: AsJson = False,
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
