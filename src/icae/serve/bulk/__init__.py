"""Many documents to memories: block by block, here or by several processes."""

from icae.serve.bulk.run import BulkJob, BulkSummary, open_engine, run_bulk, run_here

__all__ = ["BulkJob", "BulkSummary", "open_engine", "run_bulk", "run_here"]
