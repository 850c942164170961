"""The live page: its files, and the stream of what it shows."""
