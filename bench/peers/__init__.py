"""Scripts that run in another engine's Python interpreter and measure there: see protocol.py."""
