"""Messages to people, by Apprise: mail, chats, pagers, each named by an address.

Source: Apprise's own documentation, "URL Basics" and "Development API".
"""

from __future__ import annotations

import logging
from collections.abc import Collection

from lifeboat.core.errors import PreconditionError, TransientError
from lifeboat.tools import process

_LOGGER = "apprise"


def send(
    url: str,
    *,
    title: str,
    body: str,
    alarm: bool,
    doing: str,
    timeout_seconds: float,
    secrets: Collection[str] = (),
) -> None:
    """Send one message, and return when the service has taken it.

    Raises PreconditionError if the address is of no service that Apprise knows, and TransientError
    with what the service said, `secrets` masked, if it did not take it.
    """
    import apprise

    hidden = (url, *secrets)
    # What Apprise says goes into the error, and nowhere else.
    logging.getLogger(_LOGGER).propagate = False
    with apprise.LogCapture(level=logging.WARNING, name=_LOGGER, fmt="%(message)s") as said:
        service = apprise.Apprise.instantiate(bounded(url, timeout_seconds))
        if service is None:
            raise _unknown(doing)
        kind = apprise.NotifyType.FAILURE if alarm else apprise.NotifyType.SUCCESS
        taken = service.notify(title=title, body=body, notify_type=kind)
        why = " ".join(said.getvalue().split())
    if not taken:
        raise TransientError(
            f"{doing}: it was not taken ({process.mask(why, hidden) or 'no reason was given'}).",
            hint="`lifeboat alarms test` sends a message by each channel.",
        )


def require_known(url: str, *, doing: str) -> None:
    """Raise PreconditionError if the address is of no service that Apprise knows."""
    import apprise

    logging.getLogger(_LOGGER).propagate = False
    with apprise.LogCapture(level=logging.WARNING, name=_LOGGER):
        if apprise.Apprise.instantiate(url) is None:
            raise _unknown(doing)


def _unknown(doing: str) -> PreconditionError:
    return PreconditionError(
        f"{doing}: its address is of no service that Apprise knows.",
        hint="Look at alarms.channels; https://appriseit.com lists the addresses.",
    )


def bounded(url: str, timeout_seconds: float) -> str:
    """With Apprise's own parameters for how long to wait: to connect, and for the answer."""
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}cto={timeout_seconds:g}&rto={timeout_seconds:g}"
