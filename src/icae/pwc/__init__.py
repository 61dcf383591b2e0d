"""Who writes the answers of a PWC build: a service behind a URL, or the frozen decoder."""
