"""Verification of a published step."""
