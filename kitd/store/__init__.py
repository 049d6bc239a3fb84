"""The blob cache: an OCI image layout that every kit of this machine shares.

`blob_store` is the synchronous heart that worker processes use too; `content` makes it a content
store for the event loop; `layout_index` writes the `index.json` that other tools read.
"""
