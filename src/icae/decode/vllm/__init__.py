"""The decoder in a vLLM server: slots go in as prompt embeds, over HTTP."""
