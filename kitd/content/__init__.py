"""What a content store is, and the one verb over two of them: copy a graph.

The cache on disk, a repository behind HTTP and a directory of tests are all `Source` and `Target`;
push is a copy from the cache to a repository, pull the reverse, mirror a copy between two
repositories. Every operation takes a descriptor, so size and digest are always known and checked.
"""
