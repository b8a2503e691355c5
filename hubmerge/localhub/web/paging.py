"""Pages of long lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.responses import JSONResponse

from hubmerge.localhub.web.calls import Call
from hubmerge.localhub.web.parsing import parse_number

LONGEST_PAGE = 1000


def page(call: Call, items: Sequence[Any], size: int) -> JSONResponse:
    """Return one page of a list, with the address of the next page in the `Link` header.

    The query may set `limit`, the length of the page, and `cursor`, the number of items before it.
    """
    query = call.request.query_params
    limit, first = parse_number(query.get("limit")), parse_number(query.get("cursor")) or 0
    size = size if limit is None else max(1, min(limit, LONGEST_PAGE))
    response = JSONResponse(list(items[first : first + size]))
    if first + size < len(items):
        rest = [(name, value) for name, value in query.multi_items() if name != "cursor"]
        address = f"{call.endpoint}{call.request.scope['path']}?{urlencode([*rest, ('cursor', first + size)])}"
        response.headers["Link"] = f'<{address}>; rel="next"'
    return response
