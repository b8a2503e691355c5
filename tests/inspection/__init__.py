"""Tests of hubmerge.inspection."""
