"""Two tiny language streams: a classifier of sentences and a writer of sentences, made on any machine.

`python -m hubmerge.demo.language` makes both and pushes them to the Hub that HF_ENDPOINT names.
"""

from __future__ import annotations
