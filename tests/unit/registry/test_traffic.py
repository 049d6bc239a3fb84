"""What was asked of registries, in numbers."""

from kitd.registry.traffic import MAX_HOSTS, OTHER, Traffic


def test_answers_count_by_their_class():
    traffic = Traffic()
    for status in (200, 201, 307, 404, 503, None):
        traffic.answered("r", status)

    assert traffic.answers == {
        ("r", "2xx"): 2,
        ("r", "3xx"): 1,
        ("r", "4xx"): 1,
        ("r", "5xx"): 1,
        ("r", "none"): 1,
    }


def test_there_is_an_end_to_hosts():
    traffic = Traffic()
    for number in range(MAX_HOSTS + 10):
        traffic.sent(f"r{number}", 1)
        traffic.retried(f"r{number}")
    traffic.received("r0", 5)

    assert len(traffic.sent_bytes) == MAX_HOSTS + 1
    assert traffic.sent_bytes[OTHER] == traffic.retries[OTHER] == 10
    assert traffic.received_bytes == {"r0": 5}
