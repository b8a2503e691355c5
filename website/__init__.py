"""The documentation as a site: hooks of MkDocs, and pages that are generated from the code."""
