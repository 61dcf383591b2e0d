"""What is kept of outputs: everything but what differs from run to run."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

VOLATILE = re.compile(
    r"seconds|_at$|^(train_hours|progress|created|time|date|commit|version|"
    r"created_by|schema_version|machine|host|hardware|cpu|device_name|command|platform|python|torch|port|key_value_bytes|peak\w*|\w*_per_second|"
    r"milliseconds|wall\w*|process\w*)$"
)
TEXT_RULES = (
    (r"(?<![.\w])[0-9a-f]{12,}\b\+?", "<hash>"),
    (r"\b\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|[+-]\d\d:?\d\d)?)?", "<date>"),
    (r"\b\d+:\d\d:\d\d\b", "<time>"),
    (r"\d[\d.,]*(e-?\d+)? ?(s|ms|min|minutes?|seconds?|h)\b", "<time>"),
    (r"\d[\d.,]* (tok|tokens|steps|documents)(/s| a second)", r"<rate> \1/s"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
    (r"(mem|chatcmpl|sk|icae)[_-][0-9A-Za-z_-]{16,}", r"<\1>"),
    (r"\bicae \d+\.\d+\S*", "icae <version>"),
    (r"[^;|(\n]*, \d+ threads; torch [\w.+]+", " <hardware>"),
    (r"\| done \| \d+ \|", "| done | <time> |"),
    (r"train_hours \| \S+", "train_hours | <time>"),
    (r"\((evaluation n-grams \d+, )?documents \d+, .*packing \d+\)", "(<times>)"),
    (r"^(\s*(?:(?:got|expected):\s+)?)\d{4} bytes$", r"\1<bytes>"),  # a file names its version
    (r"^file\s+\d.*|\(\d[\d.]* k?B\)$", "<size>"),
    (r"[─│╭╮╰╯━┃]+", " "),
)
LONG_RECORD = 20_000


def clean_text(text: str, hide: dict[str, str]) -> str:
    """A text without times, hashes, versions and the given strings; runs of blanks are one."""
    for found, mark in hide.items():
        text = text.replace(found, mark)
    for pattern, mark in TEXT_RULES:
        text = re.sub(pattern, mark, text)
    text = re.sub(r"\d+\.\d{5,}", lambda found: f"{float(found[0]):.4g}", text)
    return re.sub(r"[ \t]+", " ", text).strip()


def lines(text: str, hide: dict[str, str]) -> list[str]:
    """The lines that are not blank, cleaned."""
    text = re.sub(r"(type: train_hours\s+value: )\S+", r"\1<time>", text)  # of a model card
    found = (clean_text(line, hide) for line in re.split(r"[\r\n]+", text))
    return [line for line in found if line]


def clean(value: Any, hide: dict[str, str]) -> Any:
    """JSON with what varies replaced by a mark and floats cut to five digits."""
    if isinstance(value, dict):
        if isinstance(value.get("target_modules"), list):  # a set in PEFT
            value["target_modules"].sort()
        return {clean_text(key, hide): _clean_item(key, item, hide) for key, item in value.items()}
    if isinstance(value, list):
        return [clean(item, hide) for item in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    return clean_text(value, hide) if isinstance(value, str) else value


def _clean_item(key: str, item: Any, hide: dict[str, str]) -> Any:
    varies = VOLATILE.search(key) or (key == "icae" and isinstance(item, str))
    if item is None or not varies or str(item).startswith("<"):
        return clean(item, hide)
    return f"<{type(item).__name__}>"


def shape(value: Any) -> Any:
    """The same without numbers."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return "<float>" if isinstance(value, float) else value


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Where two records differ, one line each; floats may differ by a thousandth, sizes by 2 %."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        found = []
        for key in keys:
            path = f"{where}.{key}" if where else key
            if key in old and key in new:
                found += differences(old[key], new[key], path)
            else:
                side, value = ("gone", old[key]) if key in old else ("new", new[key])
                found.append(f"{path} is {side}: {json.dumps(value)[:200]}")
        return found
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [line for i, (a, b) in pairs for line in differences(a, b, f"{where}[{i}]")]
    numbers = (int, float)
    if isinstance(old, numbers) and isinstance(new, numbers) and type(old) is not bool:
        sizes = where.endswith("bytes")  # the digits of seconds are in files, too
        loose = sizes or float in (type(old), type(new))
        if old == new or (loose and math.isclose(old, new, rel_tol=0.02 if sizes else 1e-3)):
            return []
        if loose and math.isclose(old, new, abs_tol=1e-4):
            return []
    elif old == new:
        return []
    return [
        f"{where}\n    - {json.dumps(old, ensure_ascii=False)[:400]}"
        f"\n    + {json.dumps(new, ensure_ascii=False)[:400]}"
    ]


class _Page(HTMLParser):
    """The words of a page, without those of scripts and styles."""

    def __init__(self) -> None:
        super().__init__()
        self.words: list[str] = []
        self.hidden = ""

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.hidden = tag if tag in ("script", "style") else self.hidden

    def handle_endtag(self, tag: str) -> None:
        self.hidden = "" if tag == self.hidden else self.hidden

    def handle_data(self, data: str) -> None:
        self.words += [] if self.hidden else data.split()


def page(text: str, hide: dict[str, str]) -> dict[str, Any]:
    """An HTML page: how many words it shows, the first and the last ones."""
    parser = _Page()
    parser.feed(text)
    words = clean_text(" ".join(parser.words), hide).split(" ")
    return {"words": len(words), "first": " ".join(words[:40]), "last": " ".join(words[-20:])}


def tensors(path: Path, hide: dict[str, str]) -> dict[str, Any]:
    """A safetensors file: its metadata, and of each tensor shape and size of its values."""
    import torch
    from safetensors import safe_open

    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata() or {}
        found: dict[str, Any] = {}
        for name in sorted(opened.keys()):
            tensor = opened.get_tensor(name)
            row: dict[str, Any] = {"dtype": str(tensor.dtype), "shape": list(tensor.shape)}
            if name != "source_zstd":
                values = tensor.to(torch.float64).flatten()
                ramp = torch.linspace(0, 1, len(values), dtype=torch.float64)
                row |= {"sum": values.sum().item(), "ramp": (values * ramp).sum().item()}
                row["squares"] = values.square().sum().item()
            found[name] = row
    header = json.loads(metadata.pop("header", "null"))
    kept: dict[str, Any] = clean({"metadata": metadata, "header": header, "tensors": found}, hide)
    return kept


def rows(path: Path, hide: dict[str, str]) -> list[Any]:
    """The rows of a Parquet file, bytes by their number."""
    import pyarrow.parquet

    def shown(value: Any) -> Any:
        return f"<{len(value).bit_length()} bits of bytes>" if isinstance(value, bytes) else value

    read = pyarrow.parquet.read_table(path).to_pylist()
    return [clean({key: shown(value) for key, value in row.items()}, hide) for row in read]


def file_record(path: Path, hide: dict[str, str]) -> Any:
    """What a written file holds, or only its size class."""
    size = path.stat().st_size
    kinds: dict[str, Callable[[], Any]] = {
        ".icae": lambda: tensors(path, hide),
        ".safetensors": lambda: tensors(path, hide),
        ".parquet": lambda: rows(path, hide),
        ".json": lambda: clean(json.loads(path.read_text()), hide),
        ".html": lambda: page(path.read_text(), hide),
        ".jsonl": lambda: [clean(json.loads(x), hide) for x in path.read_text().splitlines()],
    }
    kinds |= dict.fromkeys((".txt", ".md", ".yaml", ".csv"), lambda: lines(path.read_text(), hide))
    if path.suffix not in kinds:
        return "present" if path.suffix in (".db", ".png", "") or "events" in path.name else size
    record = kinds[path.suffix]()
    text = json.dumps(record)
    if len(text) <= LONG_RECORD:
        return record
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return {"characters": len(text), "digest": digest, "start": text[:400]}


def help_options(text: str) -> dict[str, Any]:
    """Names of the commands, arguments and options of a help text, with their defaults."""
    found: dict[str, dict[str, Any]] = {"arguments": {}, "options": {}, "commands": {}}
    section, kind, entry = "", "", ""
    for raw in text.splitlines():
        line = re.sub(r"[│╭╮╰╯]|─(?=─)|(?<=─)─", " ", raw).rstrip()
        if title := re.match(r"\W*(\w+)\W*$", line):
            section, entry = title[1].lower(), ""
        elif names := re.match(r"\s{0,6}(?:\* *)?((?:--?[a-zA-Z][\w-]*(?:, ?| +|$))+)", line):
            kind, entry = "options", " ".join(sorted(re.findall(r"-[\w-]+", names[1])))
            found[kind][entry] = line
        elif section in ("arguments", "commands") and (
            name := re.match(r"\s{1,6}(?:\* *)?(\S.*?)(?=  |$)", line)
        ):
            kind, entry = section, name[1]
            found[kind][entry] = line
        elif entry:
            found[kind][entry] += " " + line
    found["commands"] = dict.fromkeys(found["commands"], "")
    return {kind: {k: _default(v) for k, v in items.items()} for kind, items in found.items()}


def _default(text: str) -> str:
    text = re.sub(r"\[default: \(.*?\)", "[default: (chosen)", text)
    brackets = re.findall(r"\[((?:default|required|env var|[\d.<=]*x[<>]).*?)\]", text)
    parts = (" ".join(part.split()) for bracket in brackets for part in bracket.split(";"))
    return "; ".join(sorted(set(parts)))
