"""What calls of the API bring: read strictly, and refused with the name of the field that is wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from typing import Any

from gateway.errors import Kind, Refused
from gateway.web.routes import Call


def json_object(call: Call, fields: Collection[str]) -> dict[str, Any]:
    """The body as a JSON object of these fields. Raises Refused."""
    kind = call.header(b"content-type").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused("send Content-Type: application/json", Kind.UNSUPPORTED_MEDIA_TYPE)
    try:
        body = json.loads(
            call.body.decode(), object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
    except UnicodeDecodeError:
        raise Refused("the body is not UTF-8", Kind.BAD_JSON) from None
    except json.JSONDecodeError as error:
        raise Refused(f"the body is not JSON: {error.msg} at character {error.pos}", Kind.BAD_JSON) from None
    except RecursionError:
        raise Refused("the body is nested too deep", Kind.BAD_JSON) from None
    except ValueError:  # Python's own limit on the digits of an integer (sys.set_int_max_str_digits)
        raise Refused("the body has a number that is too long", Kind.BAD_JSON) from None
    if not isinstance(body, dict):
        raise Refused("the body is not a JSON object", Kind.BAD_REQUEST)
    unknown = sorted(set(body) - set(fields))
    if unknown:
        raise Refused(
            f"{_shown(unknown[0])}: is not known here; there are {', '.join(sorted(fields))}", Kind.BAD_REQUEST
        )
    return body


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Refused("the body has a field twice", Kind.BAD_JSON)
    return found


def _no_constant(name: str) -> object:
    raise Refused(f"the body is not JSON: {name}", Kind.BAD_JSON)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise Refused("the body has a number that is too large", Kind.BAD_JSON)
    return number


def text(body: Mapping[str, Any], field: str) -> str:
    """A string of ``body``. Raises Refused."""
    value = body.get(field)
    if not isinstance(value, str):
        raise Refused(f"{field}: {'is missing' if field not in body else 'is not a string'}", Kind.BAD_REQUEST)
    if any("\ud800" <= char <= "\udfff" for char in value):
        raise Refused(f"{field}: has half a surrogate pair", Kind.BAD_REQUEST)
    return value


def parameter(call: Call, name: str) -> str:
    """A parameter of the query. Raises Refused."""
    values = call.query.get(name.encode(), [])
    try:
        (value,) = values
        return value.decode()
    except ValueError:
        raise Refused(f"{name}: give it once in the query, as UTF-8", Kind.BAD_REQUEST) from None


def _shown(name: str) -> str:
    return name[:64].encode("unicode_escape").decode()
