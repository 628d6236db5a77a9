"""Who may ask the page's server, and what a browser may do with its answers.

Any page that a browser shows can send requests to this machine. So the server answers only to the
names under which it was opened (DNS rebinding), computes nothing for other pages, wants a token
where others can reach it, takes changes only with the token that the page itself was given
(cross-site requests), and tells the browser to load nothing from elsewhere.

Pages of studies may come with a zoo of someone else's, and run scripts. A browser opens them as if
from nowhere: they can ask nobody for anything, neither this server nor another, and neither see
nor lead away the page that frames them.
"""

import hmac
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "vitarium_token"
"""With the port after it: browsers send cookies to every port of a host."""
CHANGE_HEADER = "x-vitarium-token"
"""Header of requests that change something, with the page's own token."""
MAX_BODY = 2**20
"""Bytes of a request: of the ids of 70,000 models."""
_SITE, _OUR_SITES = "sec-fetch-site", ("none", "same-origin")
"""A browser's header that says whose page asks; "none": the reader, in the address bar."""
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; "
        "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
STUDIES = "/studies/"
"""Addresses of pages of studies begin so."""
_STUDY_HEADERS = _HEADERS | {
    "content-security-policy": (
        "sandbox allow-scripts; default-src 'none'; "
        "script-src 'unsafe-inline' 'unsafe-eval'; "  # Vega compiles its expressions
        "style-src 'unsafe-inline'; img-src data:; font-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
    ),
    "x-dns-prefetch-control": "off",
    "x-frame-options": "SAMEORIGIN",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Args:
        host: the address that the server listens on.
    """

    host: str
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """For the page: of every request where the server is not on loopback, else of changes."""

    @property
    def is_loopback(self) -> bool:
        """Whether this machine alone can reach the server."""
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def names(self) -> Collection[str]:
        """Hosts under which it answers; none: under all, as others need the token."""
        return (*_LOOPBACK_NAMES, self.host) if self.is_loopback else ()


class Guard:
    """ASGI middleware that lets through what `Access` allows, and marks every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                is_study = scope["path"].startswith(STUDIES)
                for name, value in (_STUDY_HEADERS if is_study else _HEADERS).items():
                    headers[name] = value
            await send(message)

        headers = Headers(scope=scope)
        refusal: Response | None = self._refusal(scope, headers)
        if refusal is None and self._has_token_in_url(scope):
            refusal = self._with_cookie(scope)
        if refusal is None and scope["method"] == "POST":
            received = await _received(receive)
            receive, refusal = (received, None) if received else (receive, _too_large())
        await (refusal or self.app)(scope, receive, send_with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> PlainTextResponse | None:
        name = headers.get("host", "").rpartition(":")[0] or headers.get("host", "")
        if self.access.names and name not in self.access.names:
            return PlainTextResponse("this is not the host that the page was opened at\n", 421)
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return PlainTextResponse("no such method\n", 405)
        if int(headers.get("content-length") or 0) > MAX_BODY:
            return _too_large()
        if scope["path"].startswith("/api/") and headers.get(_SITE, "none") not in _OUR_SITES:
            return PlainTextResponse("other pages get no answers\n", 403)
        if scope["method"] == "POST" and not self._is_token(headers.get(CHANGE_HEADER, "")):
            return PlainTextResponse("changes are taken from the page alone\n", 403)
        if not self.access.is_loopback and not self._is_known(scope, headers):
            return PlainTextResponse("open the page at the address that vitarium printed\n", 403)
        return None

    def _is_known(self, scope: Scope, headers: Headers) -> bool:
        # not by SimpleCookie, which gives up at cookies that other servers set under this name
        cookies = cookie_parser(headers.get("cookie", ""))
        return self._has_token_in_url(scope) or self._is_token(cookies.get(_cookie(scope), ""))

    def _has_token_in_url(self, scope: Scope) -> bool:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        return self._is_token(query.get("token", [""])[0])

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.access.token.encode())

    def _with_cookie(self, scope: Scope) -> RedirectResponse:
        """The same address without the token, which is no longer seen then."""
        path = "/" + scope["path"].lstrip("/")  # two slashes would begin a host's name
        response = RedirectResponse(path, 303)
        response.set_cookie(_cookie(scope), self.access.token, httponly=True, samesite="strict")
        return response


def _cookie(scope: Scope) -> str:
    return f"{COOKIE}_{scope['server'][1]}"


async def _received(receive: Receive) -> Receive | None:
    """Reads a request's body, and gives what has it still to read; None: it is too large."""
    messages, size = list[Message](), 0
    while not messages or messages[-1].get("more_body", False):
        messages.append(await receive())
        size += len(messages[-1].get("body", b""))
        if size > MAX_BODY:
            return None
    unread = iter(messages)

    async def read_again() -> Message:
        return next(unread, None) or await receive()

    return read_again


def _too_large() -> PlainTextResponse:
    return PlainTextResponse(f"a request has at most {MAX_BODY} bytes\n", 413)
