"""Prompt-with-Context triplets: everything that needs neither a model nor a network client."""
