"""Two tiny language streams: classifiers of sentences and writers of sentences.

`python -m hubmerge.demo.language` makes both, and pushes them to the Hub of HF_ENDPOINT.
"""

from __future__ import annotations
