"""Helpers without a subject of their own: text, progress, hashing, files, caches, the work folder."""
