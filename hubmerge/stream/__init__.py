"""Streams: recipes with every reference resolved to a commit."""
