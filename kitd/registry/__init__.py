"""The OCI distribution client: a repository behind HTTP as one more content store.

`client` hands out repositories, `repository` makes content operations of requests, `upload` moves
blobs, `transport` sends requests and answers challenges with `auth`. Sources: OCI distribution
specification 1.1, the distribution project's token authentication pages, RFC 9110.
"""
