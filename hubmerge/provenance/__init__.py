"""Provenance of a step: the statement of its inputs, the bill of materials, and the signature over all its files."""
