"""How to tell from its header or footer that a file of some format is not all there.

One module a format, without I/O: each is given a `Content` to read from. None may call a complete
file incomplete; each may keep quiet. Every number in a file is hostile.
"""
