"""Frozen configuration of training data: contexts, ratios and triplets of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from icae.config.parsing import check, check_ranges
from icae.config.spans import check_ratio


@dataclass(frozen=True, kw_only=True)
class RatioStage:
    """One stage of the ratio curriculum.

    Attributes:
        until: Share of the run (0..1] at which the stage ends.
        ratios: Compression ratio -> sampling weight.
    """

    until: float = 1.0
    ratios: Mapping[float, float] = field(default_factory=lambda: {4.0: 1.0})

    def __post_init__(self) -> None:
        check(0 < self.until <= 1, "A ratio stage ends out of range.", self.until, "0 < until <=1")
        check(bool(self.ratios), "A ratio stage names no ratio.", self.ratios, "{ratio: weight}")
        for ratio, weight in self.ratios.items():
            check_ratio(float(ratio))
            check(weight > 0, f"The weight of ratio {ratio} is out of range.", weight, "> 0")


@dataclass(frozen=True, kw_only=True)
class TripletFile:
    """A file of instruction triplets, and how much of it is used.

    In a recipe the path alone stands for the file with the defaults.

    Attributes:
        path: JSON lines, plain or under xz, gz or zst.
        cap: Most triplets taken from it, drawn by the recipe's seed; None takes all.
        weight: How often it is drawn from, relative to the weights of the other files;
            None: the number of triplets taken from it, so that all are equally likely.
    """

    path: str
    cap: int | None = None
    weight: float | None = None

    def __post_init__(self) -> None:
        cap, weight = self.cap, self.weight
        check(cap is None or cap >= 1, f"The cap of {self.path} is out of range.", cap, ">= 1")
        good = weight is None or 0 < weight < float("inf")
        check(good, f"The weight of {self.path} is out of range.", weight, "> 0")

    @classmethod
    def from_text(cls, text: str) -> TripletFile:
        """The file of that path, with the defaults."""
        return cls(path=text)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What training samples are drawn from and how they are cut.

    Attributes:
        shards: Folder of packed token shards (`icae data pack`).
        eval_shards: Folder of packed shards for held-out evaluation, or None.
        triplets: Files of instruction triplets: paths, or `TripletFile` settings.
        triplet_context: Longest context of a triplet in tokens; longer ones are left out, not
            cut. None: the longest of `context_lengths`.
        triplets_per_context: Most triplets of one context in a sample; they share its memory.
        context_lengths: Context length in tokens -> sampling weight. A context longer
            than the span length becomes a multi-span sample.
        continuation_length: Tokens after the context that the LM objective predicts.
        recall_probes: Places of a context that the recall objective asks for.
        ratio_curriculum: Stages in order; the last one ends at 1.0.
    """

    shards: str = ""
    eval_shards: str | None = None
    triplets: tuple[TripletFile, ...] = ()
    triplet_context: int | None = None
    triplets_per_context: int = 1
    context_lengths: Mapping[int, float] = field(default_factory=lambda: {512: 1.0})
    continuation_length: int = 128
    recall_probes: int = 3
    ratio_curriculum: tuple[RatioStage, ...] = (RatioStage(),)

    def __post_init__(self) -> None:
        check(bool(self.context_lengths), "data.context_lengths is empty.", {}, "{tokens: weight}")
        for length, weight in self.context_lengths.items():
            check(int(length) >= 2, "A context length is out of range.", length, ">= 2 tokens")
            check(weight > 0, f"The weight of length {length} is out of range.", weight, "> 0")
        counts = ("continuation_length", "recall_probes", "triplets_per_context")
        check_ranges("data", self, at_least_one=counts)
        longest = self.triplet_context
        good = longest is None or longest >= 2
        check(good, "data.triplet_context is out of range.", longest, ">= 2 tokens")
        ends = [stage.until for stage in self.ratio_curriculum]
        check(
            bool(ends) and ends == sorted(ends) and ends[-1] == 1.0,
            "data.ratio_curriculum is not in order.",
            ends,
            "rising `until`, the last one 1.0",
        )

    @property
    def longest_triplet(self) -> int:
        """Longest context of a triplet in tokens."""
        return self.triplet_context or max(int(n) for n in self.context_lengths)
