"""What a long conversation costs that turns its old turns into memory, and what it still knows.

python benchmarks/chat_compaction.py --adapter smollm2-135m-kv -o docs/results/chat

The conversation is scripted (`chat_turns.json`): 40 turns, the first ten of which tell a fact
each. It is read turn by turn as `icae chat` reads it, four turns word for word and older ones as
memory. At the end every fact is asked. The base model is small, so answers are weighed, not
written: of five words of one kind ("You said: My dog is called Biscuit / Rover / ...") the
likeliest behind the question counts, and the loss of the right one is told. Ways:

- nothing: the question without the conversation;
- full: all turns word for word;
- moved: old turns compressed from the cache, the turns behind them moved up in it (`icae chat`);
- read again: old turns compressed from the cache, the turns behind them read once more;
- from text: the encoder reads the text of old turns by itself, as it does a document.

Seconds of a compaction are to be held against those of reading the conversation so far afresh, in
the same run, at the same turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

import icae
from icae.compression import folding
from icae.config.checkout import commit
from icae.decode.conversation import Conversation
from icae.engine import Engine
from icae.evals.metadata import hardware, model_record
from icae.memory import Memory
from icae.model.decoder import DecoderRow, label_logits
from icae.model.prompts import render_prompt, tokenize

ABOUT = "This is a conversation between a user and an assistant who remembers what the user says."
KEEP_TURNS = 4
Turn = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Fact:
    """A fact of the conversation and how it is asked."""

    said: str
    replied: str
    question: str
    lead: str
    answer: str
    others: list[str]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What is known of a fact: whether its word is the likeliest, and the loss of its tokens."""

    right: bool
    loss: float


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """One compaction: at which turn, and seconds beside those of reading afresh."""

    turn: int
    seconds: float
    full_seconds: float | None
    compacted_seconds: float | None


@dataclass(frozen=True, kw_only=True)
class Told:
    """A conversation that was led in one way."""

    way: str
    positions: list[int]
    older_slots: list[int]
    compactions: list[Compaction]
    facts: list[Known]


def known(engine: Engine, memory: Memory, history: Sequence[Turn], fact: Fact) -> Known:
    """Weigh the words that may answer, behind what `ask` reads."""
    engine.ask(memory, fact.question, history=history, max_new_tokens=1)
    last = engine.runtime.last
    assert last is not None
    past = tuple((keys, values) for keys, values, *_ in last.cache)
    lead = tokenize(engine.tokenizer, fact.lead)
    losses = []
    for word in (fact.answer, *fact.others):
        ids = tokenize(engine.tokenizer, f"{fact.lead} {word}.")
        row = DecoderRow(
            ids=ids,
            positions=range(last.read.positions[-1] + 1, last.read.positions[-1] + 1 + len(ids)),
            scored=slice(len(lead) - 1, len(ids) - 1),
            past=past,
        )
        with torch.inference_mode():
            (logits_TV,) = label_logits(engine.runtime.model.decoder, [row])
        target_T = torch.from_numpy(ids[len(lead) :])
        log_probs_T = logits_TV.log_softmax(dim=-1)[torch.arange(len(target_T)), target_T]
        losses.append(-float(log_probs_T.sum()))
    return Known(right=losses[0] == min(losses), loss=losses[0])


def first_token(engine: Engine, memory: Memory, history: Sequence[Turn], question: str) -> float:
    """Seconds to the first token when nothing was read before."""
    kept, engine.runtime.last = engine.runtime.last, None
    answer = engine.ask(memory, question, history=history, max_new_tokens=1)
    engine.runtime.last = kept
    return answer.first_token_seconds


def lead_conversation(
    told: Conversation, way: str, turns: Sequence[Turn], facts: Sequence[Fact], *, every: int
) -> Told:
    """Lead a new conversation and ask its facts at the end."""
    engine = told.reader
    assert isinstance(engine, Engine)
    engine.runtime.last = None
    positions, slots, compactions = [], [], []
    for number, (said, replied) in enumerate(turns, start=1):
        if told.leaving:
            compactions.append(
                _compact(engine, told, said, turns[: number - 1], number, every=every)
            )
        answer = told.ask(said, max_new_tokens=1)
        told.history[-1] = (said, replied)
        positions.append(answer.prompt_tokens)
        slots.append(0 if told.older is None else told.older.positions)
    told.compact(facts[0].question)
    found = [known(engine, told.memory, tuple(told.history), fact) for fact in facts]
    return Told(
        way=way, positions=positions, older_slots=slots, compactions=compactions, facts=found
    )


def _compact(
    engine: Engine,
    told: Conversation,
    said: str,
    before: Sequence[Turn],
    number: int,
    *,
    every: int,
) -> Compaction:
    start = time.perf_counter()
    told.compact(said)
    seconds = time.perf_counter() - start
    if number % every:
        return Compaction(turn=number, seconds=seconds, full_seconds=None, compacted_seconds=None)
    return Compaction(
        turn=number,
        seconds=seconds,
        full_seconds=first_token(engine, told.documents, before, said),
        compacted_seconds=first_token(engine, told.memory, tuple(told.history), said),
    )


def nothing(*_: Any) -> None:
    """In place of what is found in the cache, or of what counts as read behind old turns."""


def in_every_way(
    engine: Engine,
    turns: Sequence[Turn],
    facts: Sequence[Fact],
    options: argparse.Namespace,
    ways: Sequence[str],
) -> list[Told]:
    """Lead the conversation in each way."""
    found = []
    documents = engine.compress(ABOUT, verify=False)
    own = (folding._in_cache, folding.Cached.moved_up)
    for way in ways:
        folding._in_cache = nothing if way == "from text" else own[0]  # type: ignore[assignment]
        folding.Cached.moved_up = nothing if way == "read again" else own[1]  # type: ignore[method-assign]
        said = [] if way == "nothing" else turns
        conversation = Conversation(
            reader=engine,
            documents=documents,
            keep_turns=len(turns) if way == "full" else KEEP_TURNS,
            older_positions=options.older_positions,
        )
        found.append(lead_conversation(conversation, way, said, facts, every=options.every))
        print(line(found[-1]), flush=True)
    folding._in_cache, folding.Cached.moved_up = own  # type: ignore[method-assign]
    return found


def line(told: Told) -> str:
    """One way as a row of a table."""
    right = sum(fact.right for fact in told.facts)
    loss = statistics.mean(fact.loss for fact in told.facts)
    seconds = [made.seconds for made in told.compactions]
    held = [made for made in told.compactions if made.full_seconds and made.compacted_seconds]

    def ratio(other: Callable[[Compaction], float | None]) -> str:
        shares = [made.seconds / (other(made) or 1.0) for made in held]
        return f"{statistics.median(shares):.3f}" if shares else ""

    row = [
        told.way,
        f"{right} / {len(told.facts)}",
        f"{loss:.2f}",
        str(max(told.positions, default=0)),
        str(max(told.older_slots, default=0)),
        f"{statistics.median(seconds):.3f}" if seconds else "",
        ratio(lambda made: made.full_seconds),
        ratio(lambda made: made.compacted_seconds),
    ]
    return f"| {' | '.join(row)} |"


HEAD = (
    "| way | facts | loss | most positions | slots of old turns | seconds of a compaction | "
    "of reading all turns | of reading the compacted |\n|---|---|---|---|---|---|---|---|"
)


def parser() -> argparse.ArgumentParser:
    """What can be set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--adapter", default="smollm2-135m-kv")
    parser.add_argument("--turns", type=int, default=40)
    parser.add_argument("--every", type=int, default=8, help="turns between two fresh readings")
    parser.add_argument("--older-positions", type=int, default=512)
    parser.add_argument("--ways", default="nothing,full,moved,read again,from text")
    parser.add_argument("-o", "--output", type=Path)
    return parser


def main() -> None:
    """Run it and write a table and all figures."""
    options = parser().parse_args()
    script = json.loads(Path(__file__).with_name("chat_turns.json").read_text(encoding="utf-8"))
    facts = [Fact(**fact) for fact in script["facts"]]
    turns = [(fact.said, fact.replied) for fact in facts]
    turns = [*turns, *((said, replied) for said, replied in script["others"])][: options.turns]
    engine = icae.load(options.adapter)
    print(HEAD, flush=True)
    found = in_every_way(engine, turns, facts, options, options.ways.split(","))
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        prompt = render_prompt(engine.tokenizer, facts[0].question, history=turns)
        page = f"# A conversation that compacts itself\n\n{len(turns)} turns, {len(prompt)} tokens"
        page = f"{page}, older turns in at most {options.older_positions} positions.\n\n"
        table = "\n".join([HEAD, *map(line, found)])
        (options.output / "chat.md").write_text(f"{page}{table}\n", encoding="utf-8")
        record = {
            "commit": commit(),
            "hardware": hardware(engine.runtime.model.device),
            "model": model_record(engine),
            "turns": len(turns),
            "tokens": len(prompt),
            "older_positions": options.older_positions,
            "ways": [asdict(told) for told in found],
        }
        text = json.dumps(record, indent=1)
        (options.output / "chat.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
