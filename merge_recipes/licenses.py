"""License identifiers of the Hub, each with its family: what the license asks of a model that is made from others.

The families are a rough guide and no legal advice. They decide when a recipe has to name the license of the merged
model, not what is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from enum import Enum

from merge_recipes.errors import nearest


class Family(Enum):
    """What licenses have in common, from the least to the most restrictive."""

    PERMISSIVE = "permissive"
    """Any use, also under another license; the notices stay."""
    WEAK_COPYLEFT = "weak copyleft"
    """Changed versions of the work itself keep the license."""
    OWN_TERMS = "own terms"
    """Terms of one publisher, or terms that the identifier does not determine; somebody has to read them."""
    STRONG_COPYLEFT = "strong copyleft"
    """Works that are made from it have the same license."""
    NON_COMMERCIAL = "non-commercial"
    """No commercial use, or research only."""
    NO_DERIVATIVES = "no derivatives"
    """Changed versions may not be passed on, and a merged model is one."""
    UNKNOWN = "unknown"
    """No license is stated, or the identifier is not one of the Hub."""

    @property
    def strictness(self) -> int:
        """Position in the order from the least to the most restrictive; unknown is the lowest."""
        return -1 if self is Family.UNKNOWN else list(Family).index(self)


_BY_FAMILY: Mapping[Family, str] = {
    Family.PERMISSIVE: (
        "apache-2.0 mit afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear cc0-1.0 "
        "cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 etalab-2.0 isc "
        "odc-by openmdw-1.0 postgresql ncsa unlicense zlib pddl"
    ),
    Family.WEAK_COPYLEFT: (
        "lgpl lgpl-2.1 lgpl-3.0 lgpl-lr mpl-2.0 epl-1.0 epl-2.0 lppl-1.3c ms-pl ofl-1.1 cdla-sharing-1.0"
    ),
    Family.STRONG_COPYLEFT: (
        "agpl-3.0 gpl gpl-2.0 gpl-3.0 gfdl cc-by-sa-3.0 cc-by-sa-4.0 eupl-1.1 eupl-1.2 odbl osl-3.0"
    ),
    Family.NON_COMMERCIAL: (
        "cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 deepfloyd-if-license "
        "fair-noncommercial-research-license h-research intel-research apple-amlr"
    ),
    Family.NO_DERIVATIVES: "cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0",
    Family.OWN_TERMS: (
        "openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m openrail++ "
        "c-uda cc apple-ascl llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 grok2-community gemma other"
    ),
    Family.UNKNOWN: "unknown",
}

HUB_LICENSES: Mapping[str, Family] = {
    identifier: family for family, identifiers in _BY_FAMILY.items() for identifier in identifiers.split()
}
"""The license identifiers that the Hub accepts in a card (May 2026), each with its family."""

OTHER = "other"
"""The identifier of a license that the Hub does not list. It goes with a name and a link."""

LICENSE_FILES = ("LICENSE", "LICENSE.md")
"""Files of a repo that `license_link` may name."""

_ADDRESS = re.compile(r"https?://[^\s/?#@]+([/?#]\S*)?")


def family_of(identifiers: Iterable[str]) -> Family:
    """Return the family of a license, or of several that a card states together: the most restrictive one.

    A permissive license beside one that is not known makes the family unknown.

    >>> family_of(["mit"]), family_of(["mit", "cc-by-nc-4.0"]), family_of([])
    (<Family.PERMISSIVE: 'permissive'>, <Family.NON_COMMERCIAL: 'non-commercial'>, <Family.UNKNOWN: 'unknown'>)
    """
    families = {HUB_LICENSES.get(identifier, Family.UNKNOWN) for identifier in identifiers}
    strictest = max(families, key=lambda family: family.strictness, default=Family.UNKNOWN)
    return Family.UNKNOWN if strictest is Family.PERMISSIVE and Family.UNKNOWN in families else strictest


def nearest_license(text: str) -> str | None:
    """Return the identifier that somebody probably meant, None if there is none.

    >>> nearest_license("Apache 2"), nearest_license("CC BY 4.0"), nearest_license("GPLv3")
    ('apache-2.0', 'cc-by-4.0', 'gpl-3.0')
    """
    plain = re.sub(r"[\s_]+", "-", text.strip().lower())
    equal = (identifier for identifier in HUB_LICENSES if _squeezed(identifier) == _squeezed(plain))
    return next(equal, None) or nearest(plain, HUB_LICENSES)


def _squeezed(identifier: str) -> str:
    """Return an identifier without separators, a trailing ".0", the word "license" and the v of a version."""
    words = re.sub(r"license|version|v(?=[0-9])|\.0$", "", identifier)
    return re.sub(r"[^a-z0-9+.]", "", words)


def is_license_link(link: str) -> bool:
    """Return True if the Hub accepts a text as `license_link`: LICENSE, LICENSE.md or a web address.

    >>> is_license_link("LICENSE"), is_license_link("https://example.org/license"), is_license_link("terms.txt")
    (True, True, False)
    """
    return link in LICENSE_FILES or _ADDRESS.fullmatch(link) is not None
