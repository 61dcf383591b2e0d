"""A real HTTP server on 127.0.0.1 that speaks as much of vLLM's HTTP interface as is used.

Behind it runs a tiny causal LM of transformers, so that what it writes depends on every embed
that it is sent, as with vLLM itself.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Refused(Exception):  # noqa: N818
    """A request is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class VllmStub:
    """The server's state: how it answers and what it was asked.

    ``takes_embeds``: as if started with --enable-prompt-embeds. ``answers_after``: seconds
    before an answer begins. ``together``: so many answers begin at the same time.
    ``breaks_after``: tokens after which the connection breaks. ``aborts``: whether every
    answer ends as when the server is told to end.
    """

    model: Any
    name: str = "tiny-base"
    root: str = "tiny-base"
    window: int = 256
    listed: list[dict[str, Any]] | None = None
    takes_embeds: bool = True
    key: str | None = None
    answers_after: float = 0.0
    together: threading.Barrier | None = None
    breaks_after: int | None = None
    aborts: bool = False
    token_ids: bool = True
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    memories: list[str] = field(default_factory=list)
    dtypes: list[str] = field(default_factory=list)
    written: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def models(self) -> dict[str, Any]:
        """What /v1/models answers."""
        own = {"id": self.name, "object": "model", "created": 0, "owned_by": "vllm"}
        own |= {"root": self.root, "parent": None, "max_model_len": self.window}
        return {"object": "list", "data": [own] if self.listed is None else self.listed}

    def embeds(self, body: dict[str, Any]) -> Any:
        """The decoder inputs of a request, [S, D]."""
        import torch

        table = self.model.get_input_embeddings()
        if not body.get("prompt_embeds"):
            return table(torch.tensor(body["prompt"])).detach()
        if body.get("prompt") is not None:
            raise Refused(400, "These are two prompts.")
        if not self.takes_embeds:
            raise Refused(400, "You must set `--enable-prompt-embeds` to input `prompt_embeds`.")
        data = io.BytesIO(base64.b64decode(body["prompt_embeds"], validate=True))
        embeds_SD = torch.load(data, weights_only=True)
        width = table.weight.shape[1]
        if embeds_SD.shape[1] != width:
            raise Refused(
                400,
                f"`prompt_embeds` hidden_size {embeds_SD.shape[1]} does not match "
                f"the model's hidden_size {width}.",
            )
        with self.lock:
            self.dtypes.append(str(embeds_SD.dtype))
        return embeds_SD.to(table.weight.dtype)

    def greedy(self, body: dict[str, Any]) -> Iterator[tuple[int, str | None]]:
        """The tokens of an answer, each with the reason why it is the last, or None."""
        import torch

        embeds_SD = self.embeds(body)
        if len(embeds_SD) + body["max_tokens"] > self.window:
            raise Refused(400, f"This model's maximum context length is {self.window} tokens.")
        table = self.model.get_input_embeddings()
        for left in range(body["max_tokens"] - 1, -1, -1):
            with torch.inference_mode():
                logits = self.model(inputs_embeds=embeds_SD[None], logits_to_keep=1).logits
                token = int(logits[0, -1].argmax())
                embeds_SD = torch.cat([embeds_SD, table(torch.tensor([token]))])
            stops = token in body["stop_token_ids"]
            yield token, "stop" if stops else "length" if left == 0 else None
            if stops:
                return


@contextmanager
def vllm_stub(model: Any, **settings: Any) -> Iterator[VllmStub]:
    """Run the server while the block runs."""
    state = VllmStub(model=model, **settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._guarded(lambda: self._json(200, state.models()))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with state.lock:
                state.bodies.append(body)
                state.memories.append(self.headers.get("X-Icae-Memory", ""))
            try:
                self._guarded(lambda: self._stream(body))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _guarded(self, act: Any) -> None:
            try:
                sent = self.headers.get("Authorization", "")
                if state.key is not None and sent != f"Bearer {state.key}":
                    raise Refused(401, "Unauthorized")
                act()
            except Refused as refused:
                error = {"message": str(refused), "type": "Error", "code": refused.status}
                self._json(refused.status, {"error": error})

        def _stream(self, body: dict[str, Any]) -> None:
            tokens = state.greedy(body)
            first = next(tokens)  # a refusal comes before the head of the answer
            time.sleep(state.answers_after)
            if state.together is not None:
                state.together.wait()
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._event(body, first)
            for count, token in enumerate(tokens, start=1):
                if count == state.breaks_after:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self._event(body, token)
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
            self.wfile.flush()

        def _event(self, body: dict[str, Any], made: tuple[int, str | None]) -> None:
            token, reason = made
            reason = "abort" if reason and state.aborts else reason
            choice = {"index": 0, "text": f"<{token}>", "logprobs": None, "finish_reason": reason}
            if state.token_ids:
                choice["token_ids"] = [token]
            chunk = {"id": "x", "object": "text_completion", "created": 0, "model": body["model"]}
            self._chunk(f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n".encode())
            with state.lock:
                state.written += 1

        def _json(self, status: int, answer: dict[str, Any]) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
