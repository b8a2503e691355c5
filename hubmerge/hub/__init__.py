"""The Hub: the only place that talks to it."""
