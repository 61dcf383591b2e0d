"""An HTTP server with the chat API that OpenAI clients speak, and memories as objects.

One thread runs the model; requests that wait together are answered together. Needs the
extra ``server``.
"""
