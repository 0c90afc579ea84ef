"""Requests as lifeboat.yaml describes them, and whether their answers are as they should be."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lifeboat.core.checklist import (
    PLACEHOLDER,
    RANDOM,
    UPLOADED_SHA256,
    Expect,
    Request,
    Session,
    Upload,
)
from lifeboat.core.errors import PreconditionError, TransientError, VerificationFailed

if TYPE_CHECKING:
    import httpx

_LONGEST_EXCERPT = 160  # characters of a body in an error


@dataclass(frozen=True)
class Answer:
    """What came back. `json` is None where the body is no JSON."""

    status: int
    body: bytes
    json: Any
    seconds: float

    def in_words(self) -> str:
        return f"{self.status} in {self.seconds * 1000:.0f} ms"


@dataclass
class Client:
    """Sends requests one after another and keeps what their answers save. For one thread.

    `secret` gives the value of a `${NAME}` that no earlier answer saved; it raises what it likes
    if there is none.
    """

    base_url: str
    timeout_seconds: float
    secret: Callable[[str], str]
    headers: dict[str, str] = field(default_factory=dict)
    _saved: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        import httpx  # with rich behind it, a tenth of a second: only who asks pays

        self._http = httpx.Client(timeout=self.timeout_seconds, follow_redirects=False)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def log_in(self, session: Session) -> Answer:
        """Send the login; later requests carry the session's headers."""
        answer = self.send(session.login)
        self.headers.update({key: self._fill(text) for key, text in session.headers.items()})
        return answer

    def send(self, request: Request) -> Answer:
        """Send one request and give its answer.

        Raises TransientError if nothing answers, VerificationFailed, with what was seen, if the
        answer is not as expected.
        """
        answer = self.try_(request)
        self._require(request.expect, answer, f"{request.method} {self._shown_url(request)}")
        for name, path in request.save.items():
            self._saved[name] = str(value_at(answer.json, path))
        return answer

    def try_(self, request: Request) -> Answer:
        """Send one request and give whatever comes back."""
        import httpx

        self._saved[RANDOM] = secrets.token_hex(8)
        url = self._url(request)
        shown = f"{request.method} {self._shown_url(request)}"
        arguments: dict[str, Any] = {"headers": {**self.headers, **self._all(request.headers)}}
        if request.json_body is not None:
            arguments["json"] = self._all(request.json_body)
        if request.form is not None:
            arguments["data"] = self._all(request.form)
        if request.upload is not None:
            arguments["files"] = self._files(request.upload)
        began = time.monotonic()
        try:
            response = self._http.request(request.method, url, **arguments)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise PreconditionError(
                f"{shown}: {error}.", hint="Look at checks.base_url."
            ) from error
        except httpx.TimeoutException as error:
            raise TransientError(f"{shown}: no answer in {self.timeout_seconds:g} s.") from error
        except httpx.HTTPError as error:
            raise TransientError(f"{shown}: no answer ({error}).") from error
        seconds = time.monotonic() - began
        return Answer(response.status_code, response.content, _json(response), seconds)

    def _files(self, upload: Upload) -> dict[str, tuple[str, bytes]]:
        if upload.content:
            content = self._fill(upload.content).encode()
        else:
            content = secrets.token_bytes(upload.bytes)
        self._saved[UPLOADED_SHA256] = hashlib.sha256(content).hexdigest()
        return {upload.field: (self._fill(upload.filename), content)}

    def _require(self, expect: Expect, answer: Answer, shown: str) -> None:
        excerpt = answer.body[:_LONGEST_EXCERPT].decode(errors="replace")
        if answer.status not in expect.status:
            wanted = " or ".join(map(str, expect.status))
            raise VerificationFailed(f"{shown}: status {answer.status}, not {wanted}: {excerpt}")
        for path, wanted in expect.equals.items():
            found = value_at(answer.json, path)
            if found != self._all(wanted):
                raise VerificationFailed(f"{shown}: {path} is {found!r}, not {wanted!r}")
        for path, least in expect.at_least.items():
            found = _amount(value_at(answer.json, path))
            if found is None or found < least:
                raise VerificationFailed(f"{shown}: {path} is {found}, less than {least:g}")
        for text in expect.contains:
            if self._fill(text).encode() not in answer.body:
                raise VerificationFailed(f"{shown}: the body lacks {text!r}: {excerpt}")
        if expect.sha256:
            found = hashlib.sha256(answer.body).hexdigest()
            if found != self._fill(expect.sha256):
                raise VerificationFailed(
                    f"{shown}: the body of {len(answer.body)} bytes has SHA-256 {found[:12]}, "
                    f"not {self._fill(expect.sha256)[:12]}"
                )

    def _url(self, request: Request) -> str:
        url = self._fill(request.url)
        return url if url.startswith(("http://", "https://")) else self.base_url.rstrip("/") + url

    @staticmethod
    def _shown_url(request: Request) -> str:
        return request.url  # not filled: a secret may be part of it

    def _fill(self, text: str) -> str:
        return PLACEHOLDER.sub(
            lambda match: self._saved.get(match[1]) or self.secret(match[1]), text
        )

    def _all(self, value: Any) -> Any:
        if isinstance(value, str):
            return self._fill(value)
        if isinstance(value, Mapping):
            return {self._all(key): self._all(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._all(item) for item in value]
        return value


def value_at(value: Any, path: str) -> Any:
    """Given a JSON value and a path such as `models.0.id`, give what is there; None if nothing."""
    for step in filter(None, path.split(".")):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _amount(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return value
    return len(value) if isinstance(value, (str, list, Mapping)) else None


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
