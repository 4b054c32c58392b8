"""Wait until a service can answer requests."""

import time
from collections.abc import Callable
from json import JSONDecodeError

import httpx

POLL_SECONDS = 0.5


def wait_until_ready(url: str, seconds: float, check: Callable[[], None] = lambda: None) -> str | None:
    """Wait until a service's ``/readyz`` responds with 200.

    Args:
        url: The service's address.
        seconds: How long to wait at most.
        check: Called before each request; an exception that it raises ends the waiting.

    Returns:
        ``None`` if it is ready, or what it responded last.
    """
    deadline = time.monotonic() + seconds
    with httpx.Client(base_url=url, timeout=10) as client:
        while True:
            check()
            try:
                response = client.get("/readyz")
            except httpx.TransportError as error:
                answer = f"{type(error).__name__}: {error}"
            else:
                if response.status_code == httpx.codes.OK:
                    return None
                answer = f"{response.status_code} {_reasons(response)}"
            if time.monotonic() >= deadline:
                return answer
            time.sleep(POLL_SECONDS)  # a service cannot say when it will be ready


def _reasons(response: httpx.Response) -> str:
    """Return why a service is not ready, by component, or else the text of its response."""
    try:
        return "; ".join(f"{component}: {reason}" for component, reason in response.json()["unavailable"].items())
    except (JSONDecodeError, KeyError, TypeError, AttributeError):
        return response.text[:300]
