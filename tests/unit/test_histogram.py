"""Numbers counted by their size."""

from kitd.histogram import Histogram


def test_each_value_counts_in_the_first_bucket_that_holds_it():
    histogram = Histogram((0.1, 1.0, 10.0))
    for value in (0.0, 0.1, 0.100001, 1.0, 9.0, 10.5, 1e9):
        histogram.observe(value)

    assert histogram.read().counts == (2, 2, 1, 2)
    assert histogram.read().total == 0.0 + 0.1 + 0.100001 + 1.0 + 9.0 + 10.5 + 1e9


def test_what_was_read_stays():
    histogram = Histogram((1.0,))
    before = histogram.read()
    histogram.observe(0.5)

    assert before.counts == (0, 0)
