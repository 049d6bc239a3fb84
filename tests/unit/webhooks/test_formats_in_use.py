"""The formats there are: each can be configured, and what was kept for it can be read again."""

from collections import UserDict
from contextlib import suppress

import pytest

from kitd.config.model import WebhookFormat
from kitd.webhooks.delivery import Delivery
from kitd.webhooks.format import MalformedDeliveryError
from kitd.webhooks.formats import FORMATS
from kitd.webhooks.judgement import kept_headers


def test_the_configuration_names_the_formats_there_are():
    assert {str(word) for word in WebhookFormat} == set(FORMATS)


class Looked(UserDict):
    """Headers that note which of them were looked for."""

    def __init__(self, values):
        super().__init__(values)
        self.names = set()

    def __contains__(self, name):
        self.names.add(name)
        return super().__contains__(name)

    def __getitem__(self, name):
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name, default=None):
        self.names.add(name)
        return super().get(name, default)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("body", [b"{}", b"[]", b"payload=%7B%7D"])
@pytest.mark.parametrize("values", [{}, {"ce-type": "a", "ce-id": "b", "ce-source": "c"}])
def test_what_a_format_reads_is_kept(name, body, values):
    headers = Looked(values)
    delivery = Delivery(method="POST", headers=headers, body=body, received_us=0)
    with suppress(MalformedDeliveryError):
        FORMATS[name].read(delivery)
    FORMATS[name].delivery_id(delivery)
    assert kept_headers(dict.fromkeys(headers.names, "x")).keys() == headers.names
