"""Redis: whether it answers, and keeps what it is given."""

from __future__ import annotations

import secrets
import time

from lifeboat.core.errors import PreconditionError, TransientError, VerificationFailed

_PROBE_SECONDS = 30


def round_trip(
    *,
    host: str,
    port: int,
    database: int,
    user: str,
    password: str,
    tls: bool,
    timeout_seconds: float,
) -> float:
    """Write, read and remove a probe key; give the seconds that it took.

    The key expires by itself if we die in between. Raises TransientError if Redis does not answer,
    PreconditionError if it refuses the password, VerificationFailed if it gives another value or
    takes no writes.
    """
    import redis  # as long as the rest of a command's start: only who asks pays

    doing = f"Asking Redis at {host}:{port}"
    client = redis.Redis(
        host=host,
        port=port,
        db=database,
        username=user or None,
        password=password or None,
        ssl=tls,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
    )
    key, value = f"lifeboat:probe:{secrets.token_hex(8)}", secrets.token_bytes(32)
    began = time.monotonic()
    try:
        client.ping()
        client.set(key, value, ex=_PROBE_SECONDS)
        found = client.get(key)
        client.delete(key)
    except redis.AuthenticationError as error:
        raise PreconditionError(f"{doing}: it refuses the password ({error}).") from error
    except (redis.ConnectionError, redis.TimeoutError) as error:
        raise TransientError(f"{doing}: it does not answer ({error}).") from error
    except redis.RedisError as error:
        raise VerificationFailed(f"{doing}: {error}.") from error
    finally:
        client.close()
    if found != value:
        raise VerificationFailed(f"{doing}: it gave another value back.")
    return time.monotonic() - began
