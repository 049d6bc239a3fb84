"""Refused deliveries are counted always and told of once a minute."""

from kitd.webhooks.refusal import Refusals


def test_the_first_is_told_and_then_one_a_minute_with_all_since():
    refusals = Refusals()
    told = [refusals.note("a", now_s) for now_s in (5.0, 6.0, 64.9, 65.0, 66.0, 130.0)]
    assert told == [1, None, None, 3, None, 2]
    assert refusals.by_source["a"] == 6


def test_sources_are_told_of_by_themselves():
    refusals = Refusals()
    assert [refusals.note(source, 1.0) for source in "abab"] == [1, 1, None, None]
