"""`icae serve` and `icae serve-key`: the HTTP server and the keys to it."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Context, Option

from icae.cli import console
from icae.cli.command import Outcome, command
from icae.cli.memories import maker_of
from icae.cli.options import Count, ModelOptions, Ratio, VllmOptions
from icae.cli.settings_file import effective_settings, read_settings
from icae.errors import IcaeError, InputError

if TYPE_CHECKING:
    from icae.decode.llamacpp.runtime import LlamaCppRuntime
    from icae.decode.vllm.runtime import VllmRuntime
    from icae.engine import Engine
    from icae.serve.config import ServerConfig

Seconds = Annotated[float, Option(min=1, metavar="S")]
ConfigFile = Annotated[
    Path | None, Option(metavar="FILE", callback=read_settings, is_eager=True, show_default="none")
]
Megabytes = Annotated[float, Option(min=0.001, metavar="N")]


@dataclass(frozen=True, kw_only=True)
class ServerOptions(VllmOptions):
    """Where the server listens, who may use it, and what it takes on.

    Attributes:
        store: Where memories are kept.
        host: Address to listen on.
        port: Port; 0 for a free one.
        keys: Key file, made with `icae serve-key`; every request then needs a key, and each key
            has its own memories.
        auto_compress: Read messages of more than N tokens as memory.
        keep_turns: Read older turns of a conversation than its last N as memory.
        older_positions: Most decoder positions of older turns; the oldest are compressed further.
        max_body_mb: Largest body, in MB.
        max_waiting: Most chats that wait; more get 429.
        max_per_key: Most requests of a key at a time.
        max_new_tokens: Longest answer in tokens.
        kv_cache_mb: Most MB of key-value caches kept of memories that were asked, and as many
            of conversations with --keep-turns.
        timeout: Longest time for an answer, in seconds.
        grace: Seconds to finish requests when told to end.
        runtime: What answers: torch, llamacpp (which answers faster on a CPU; compressing and
            scores of prompts stay with torch), or the vllm of --engine.
        access_log: Write a line of JSON about each request to standard error.
    """

    store: Annotated[str, Option("--store", "-s", metavar="PATH")] = "icae-server.db"
    host: Annotated[str, Option(metavar="ADDRESS")] = "127.0.0.1"
    port: Annotated[int, Option(min=0, max=65535, metavar="N")] = 8000
    keys: Annotated[
        Path | None, Option(metavar="PATH", show_default="no keys, this machine alone")
    ] = None
    auto_compress: Annotated[int | None, Option(min=1, metavar="N", show_default="never")] = None
    keep_turns: Annotated[int | None, Option(min=1, metavar="N", show_default="all")] = None
    older_positions: Count = 512
    ratio: Ratio = 4.0
    max_body_mb: Megabytes = 10.0
    max_waiting: Count = 64
    max_per_key: Count = 32
    max_new_tokens: Count = 1024
    kv_cache_mb: Megabytes = 512.0
    timeout: Seconds = 300.0
    grace: Seconds = 30.0
    runtime: Annotated[
        str | None, Option(metavar="NAME", show_default="torch; vllm with --engine")
    ] = None
    access_log: bool = False

    def config(self) -> ServerConfig:
        """What the server takes on."""
        from icae.serve.config import ServerConfig

        return ServerConfig(
            ratio=self.ratio,
            longest_message=self.auto_compress,
            keep_turns=self.keep_turns,
            older_positions=self.older_positions,
            body_bytes=int(self.max_body_mb * 1_000_000),
            waiting=self.max_waiting,
            per_owner=self.max_per_key,
            answer_tokens=self.max_new_tokens,
            request_seconds=self.timeout,
            kept_bytes=int(self.kv_cache_mb * 1_000_000),
            grace_s=self.grace,
        )

    def answering(self) -> str:
        """The runtime that answers.

        Raises:
            InputError: If the server has no such runtime, or --engine names another one.
        """
        able = ("torch", "llamacpp") if self.server() is None else ("vllm",)
        if self.runtime not in (None, *able):
            raise InputError(
                "The server does not answer with this runtime.",
                got=f"--runtime {self.runtime}",
                expected=" or ".join(able)
                + (" without" if len(able) > 1 else " with")
                + " --engine",
                fix="Name another one, or the address of a vLLM server with --engine.",
            )
        return self.runtime or able[0]


@command
def serve(
    *,
    context: Context,
    options: ServerOptions,
    model: ModelOptions,
    config: ConfigFile = None,
    check_config: bool = False,
) -> Outcome:
    """Serve chats and memories over HTTP to OpenAI clients, until told to end.

    Each option can stand in the file of --config, or in the environment as ICAE_SERVE_ and its
    name; an option goes before the environment, and that before the file.

    Args:
        config: YAML file of options: a line such as `port: 8000` each.
        check_config: Print the settings and what is wrong with them, and end.
    """
    if check_config:
        return _checked(context, options)
    return _serve(options, model)


def _checked(context: Context, options: ServerOptions) -> Outcome:
    """The settings, and why a server with them would not start (exit code 2)."""
    from icae.serve.keys import Keys
    from icae.serve.listening import check_public

    settings, wrong = effective_settings(context), None
    try:
        options.config()
        options.answering()
        check_public(options.host, Keys() if options.keys is None else Keys.load(options.keys))
    except IcaeError as error:
        wrong = str(error)

    def show() -> None:
        lines = [f"{name}: {one['value']}  # {one['from']}\n" for name, one in settings.items()]
        console.write_text("".join(lines) + (f"\n{wrong}\n" if wrong else ""))

    return Outcome(
        payload={"settings": settings, "wrong": wrong}, show=show, exit_code=2 if wrong else 0
    )


def _serve(options: ServerOptions, model: ModelOptions) -> Outcome:
    from icae.config.extras import import_extra

    config = options.config()
    for package in ("fastapi", "uvicorn", "prometheus_client", "python_multipart"):
        import_extra(package, purpose="The server", extra="server")
    from icae.serve.app import make_app
    from icae.serve.keys import Keys
    from icae.serve.listening import check_public, listen, make_server
    from icae.serve.service import Service
    from icae.store import create_store

    keys = Keys() if options.keys is None else Keys.load(options.keys)
    check_public(options.host, keys)
    options.answering()
    start = time.perf_counter()
    with create_store(options.store) as store, listen(options.host, options.port) as sock:
        icae = model.load(maker_of(store))
        decoder = _decoder(icae, options, model)
        service = Service(icae, store, keys=keys, config=config, decoder=decoder)
        host = f"[{options.host}]" if ":" in options.host else options.host
        root = f"http://{host}:{sock.getsockname()[1]}"
        url = f"{root}/v1"
        console.note(f"Serving {service.model} at {url}; to try it: {root}/. Ctrl-C ends it.")
        app = make_app(service, access_log=options.access_log)
        make_server(app, grace_s=config.grace_s).run(sockets=[sock])
    seconds = round(time.perf_counter() - start, 3)
    return Outcome(payload={"url": url, "model": service.model, "seconds": seconds})


@command
def serve_key(
    *,
    name: Annotated[str, Argument(metavar="NAME")],
    keys: Annotated[Path, Option(metavar="PATH")] = Path("keys.txt"),
) -> Outcome:
    """Make an API key, print it once, and add its hash to a key file.

    Args:
        name: Whose key it is: the owner of its memories.
        keys: Key file; made if there is none.
    """
    from icae.serve.keys import add_key

    key = add_key(keys, name)
    return Outcome(
        payload={"name": name, "key": key, "keys": str(keys)},
        show=lambda: console.write_text(f"{key}\n"),
    )


def _decoder(
    icae: Engine, options: ServerOptions, model: ModelOptions
) -> VllmRuntime | LlamaCppRuntime | None:
    """What answers in place of the loaded model, if anything does."""
    from icae import opening
    from icae.decode.llamacpp.runtime import LlamaCppRuntime
    from icae.model.adapter_files import adapter_folder

    made, server = icae.provenance, options.server()
    folder = adapter_folder(model.adapter, made)
    if server is not None:
        # With a secret of its own where the environment gave none.
        server = replace(server, secret=server.secret or secrets.token_hex(32))
        base, dtype = made.base_model, made.slot_dtype
        return opening.connect_vllm(server, folder, base=base, dtype=dtype)
    if options.answering() == "torch":
        return None
    runtime = opening.open_llamacpp(folder, base=made.base_model, dtype=model.dtype).decoder
    assert isinstance(runtime, LlamaCppRuntime)
    return runtime
