"""Corpus to samples: documents, token shards and triplets. Knows a tokenizer, never a model."""
