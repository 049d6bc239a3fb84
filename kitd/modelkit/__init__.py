"""The ModelKit format: Kitfile, config, manifest, layer plans, tar headers, filters. Pure.

Two dialects are written, `current` (what kit 1.16 writes) and `kit-1.7`; every shape kit has
written is read. Paths of the file system are bytes, since names need not be UTF-8; paths in a
Kitfile are text and stand for their UTF-8 bytes. Nothing here does I/O, reads a clock or knows a
room other than `kitd.oci`.
"""
