"""Runs what the pages tell people to do: `page` reads them, `tour` does what they say."""
