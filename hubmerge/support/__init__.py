"""Shared helpers: files, hashing, the memo, progress, text, the work folder."""
