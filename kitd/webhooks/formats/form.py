"""GitHub and Gitea can send their JSON as the field `payload` of a form.

The signature is over the bytes of the form (docs.github.com, "Validating webhook deliveries").
"""

from urllib.parse import unquote_to_bytes

from kitd.webhooks.delivery import Delivery
from kitd.webhooks.formats.document import malformed

_FORM = "application/x-www-form-urlencoded"
_MAX_FIELDS = 16
_STEP_BYTES = 1 << 20


def payload_of(delivery: Delivery) -> bytes:
    """Return the JSON that was sent, out of its form if it is in one.

    Raises `MalformedDeliveryError`.
    """
    media_type = delivery.headers.get("content-type", "").partition(";")[0]
    if media_type.strip().lower() != _FORM:
        return delivery.body
    count = delivery.body.count(b"&") + 1
    if count > _MAX_FIELDS:
        raise malformed(f"a form of {count} fields, more than {_MAX_FIELDS}")
    fields = [field.partition(b"=") for field in delivery.body.split(b"&")]
    payloads = [value for name, _, value in fields if name == b"payload"]
    if len(payloads) != 1:
        raise malformed(f"payload: expected one field of the form, found {len(payloads)}")
    return _decoded(payloads[0])


def _decoded(value: bytes) -> bytes:
    """Return what a form's field stands for (URL Standard, section 5.1)."""
    text, pieces, begin = value.replace(b"+", b" "), [], 0
    while begin < len(text):
        end = begin + _STEP_BYTES
        # A percent sign stays with its digits. Decoding takes a hundred times what it is given,
        # hence the steps.
        cut = text.rfind(b"%", end - 2, end)
        end = end if cut < 0 else cut
        pieces.append(unquote_to_bytes(text[begin:end]))
        begin = end
    return b"".join(pieces)
