"""Stacked layers: models whose layers come from several places of one or several models."""
