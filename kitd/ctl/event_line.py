"""An event as a line of text. Pure."""

import json

from kitd.client.record import Event
from kitd.ctl.format import printable


def event_line(event: Event) -> str:
    """Return time, number, type, subject and data of an event in one line."""
    data = " ".join(f"{name}={_value(value)}" for name, value in event.data.items())
    line = f"{event.at:<20} {event.seq:>6}  {event.type:<16} {event.subject}  {data}"
    return printable(line.rstrip())


def _value(value: object) -> str:
    if isinstance(value, str) and value.isprintable() and value and " " not in value:
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
