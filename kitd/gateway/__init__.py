"""kitd's own OCI registry: an endpoint of the distribution specification 1.1 over the blob cache.

Any OCI tool can pull what kitd packed, and push what kitd shall keep. `naming`, `byte_range` and
`refusal` are pure; `upload` owns the blobs on their way in; `blob`, `manifest` and `listing` answer
requests; `application` routes them and `server` listens. Which manifests and tags a repository has
is the `catalog`'s business, which the ledger implements.

Blobs belong to the cache and not to a repository: whoever may read one repository may read every
blob whose digest they know. There is no authentication, which is why only loopback is the default.
"""
