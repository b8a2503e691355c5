"""The report of a stream, and its accuracy matrix."""
