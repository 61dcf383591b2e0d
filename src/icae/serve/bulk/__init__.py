"""Many documents to memories: block by block, here or by the workers of a Ray cluster."""

from icae.serve.bulk.compress import BlockWork, Encoder
from icae.serve.bulk.encoder import EngineOpener
from icae.serve.bulk.local import run_here
from icae.serve.bulk.run import BulkJob, BulkSummary, Runner, run_bulk

__all__ = [
    "BlockWork",
    "BulkJob",
    "BulkSummary",
    "Encoder",
    "EngineOpener",
    "Runner",
    "run_bulk",
    "run_here",
]
