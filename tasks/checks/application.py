"""Application functionality: login, files, search, inference, administration."""

from __future__ import annotations

import contextlib

from lifeboat.core.errors import RecoveryError
from tasks.checks.context import Context, Failed, required


def authentication(context: Context) -> str:
    """A user logs in and is known; a wrong password is refused."""
    told = required(context.settings.checks.authentication, "authentication")
    session = context.settings.checks.sessions[told.session]
    with context.client() as client:
        seen = [f"login {client.log_in(session).in_words()}"]
        seen += [f"{r.url} {client.send(r).in_words()}" for r in told.requests]
    with context.client(wrong_passwords=True) as stranger:
        answer = stranger.try_(session.login)
    if answer.status not in told.refused_with:
        raise Failed(f"a wrong password was answered with {answer.status}, not refused")
    return "; ".join((*seen, f"wrong password refused with {answer.status}"))


def file_round_trip(context: Context) -> str:
    """A file is uploaded, comes back the same, and is removed."""
    told = required(context.settings.checks.file_round_trip, "file_round_trip")
    with context.client(told.session) as client:
        try:
            seen = [f"{r.method} {r.url} {client.send(r).in_words()}" for r in told.requests]
        finally:
            for request in told.clean_up:
                with contextlib.suppress(RecoveryError):
                    client.send(request)
    return "; ".join(seen)


def search(context: Context) -> str:
    """Search finds what is there."""
    told = required(context.settings.checks.search, "search")
    with context.client(told.session) as client:
        return "; ".join(f"{r.url} {client.send(r).in_words()}" for r in told.requests)


def ai_inference(context: Context) -> str:
    """A known question has its known answer."""
    told = required(context.settings.checks.ai_inference, "ai_inference")
    seen = []
    with context.client(told.session) as client:
        for request in told.requests:
            answer = client.send(request)
            wanted = ", ".join(f"{k} = {v}" for k, v in request.expect.equals.items())
            seen.append(f"{wanted or request.url} {answer.in_words()}")
    return "; ".join(seen)


def admin_dashboard(context: Context) -> str:
    """The administrator sees the dashboard, and a stranger does not."""
    told = required(context.settings.checks.admin_dashboard, "admin_dashboard")
    with context.client(told.session) as client:
        seen = [f"{r.url} {client.send(r).in_words()}" for r in told.requests]
    with context.client() as stranger:
        answer = stranger.try_(told.requests[0])
    if answer.status not in told.refused_with:
        raise Failed(f"{told.requests[0].url} is open to strangers: status {answer.status}")
    return "; ".join((*seen, f"strangers are refused with {answer.status}"))
