"""An event as a line of text. Pure."""

import json

from kitd.client.record import Event
from kitd.ctl.cells import fold
from kitd.ctl.format import printable

_INDENT = " " * 4


def event_text(event: Event, width: int | None) -> str:
    """Return time, number, type, subject and data of an event: a line, or as many as it takes."""
    data = " ".join(f"{name}={_value(value)}" for name, value in event.data.items())
    line = f"{event.at:<20} {event.seq:>6}  {event.type:<16} {event.subject}  {data}"
    return "\n".join(fold(printable(line.rstrip()), width, indent=_INDENT))


def _value(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and value and " " not in value:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
