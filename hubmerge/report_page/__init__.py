"""A report as one HTML page that needs no other file and no network."""

from __future__ import annotations

from hubmerge.report_page.page import PageDetails, report_page

__all__ = ["PageDetails", "report_page"]
