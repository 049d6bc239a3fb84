"""OCI vocabulary: digests, descriptors, manifests, references, challenges. Pure.

Sources: OCI image specification 1.1, OCI distribution specification 1.1, RFC 9110 (challenges).
Nothing here does I/O, reads a clock or knows another room.
"""
