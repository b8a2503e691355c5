"""Automatic merging: changes on the Hub, and the services that run a recipe when something changed."""
