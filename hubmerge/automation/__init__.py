"""Merging by itself: what moved on the Hub, and what starts a run when something did."""
