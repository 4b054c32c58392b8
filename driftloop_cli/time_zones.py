"""Names of time zones that commands take."""

from zoneinfo import available_timezones

from driftloop.errors import InvalidInput
from driftloop.near_names import near_names


def require_timezone(name: str) -> str:
    """Return the name of a time zone.

    Raises:
        InvalidInput: There is no such zone; the message has names that are similar.
    """
    zones = available_timezones()
    if name in zones:
        return name
    cities = {zone.rsplit("/", 1)[-1]: zone for zone in sorted(zones)}
    near = near_names(name.rsplit("/", 1)[-1].replace(" ", "_"), cities)
    hint = f": did you mean {', '.join(cities[city] for city in near)}?" if near else ", such as Europe/Berlin"
    raise InvalidInput(f"there is no time zone {name!r}{hint}")
