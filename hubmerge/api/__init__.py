"""Public functions of hubmerge, one module per subject; the command line calls nothing else.

Users import them from `hubmerge` itself, which loads each function when it is first used.
"""
