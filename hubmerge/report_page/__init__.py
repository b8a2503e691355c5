"""A report as one HTML page that needs no other file and no network."""

from __future__ import annotations

from hubmerge.report_page.document import PAGE_FORM, page_form
from hubmerge.report_page.left_out import LeftOut, LeftOutEntry
from hubmerge.report_page.page import PageDetails, report_page

__all__ = ["PAGE_FORM", "LeftOut", "LeftOutEntry", "PageDetails", "page_form", "report_page"]
