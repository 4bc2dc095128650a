"""Many pictures, each answered exactly once, whatever is killed on the way.

A job is a manifest (``manifest.py``) cut into fixed shards (``shards.py``). A shard's records are written whole under
their final name, if nobody else has done so before (``destinations/``): that rule alone makes them exactly-once. Who
computes a shard, when, and how often, is the drivers' affair (``drivers/``), and to go on is to run what is missing.

``inputs/`` lists and reads pictures, ``work.py`` turns a range of a shard into records, ``writers/`` turns records into
files for people and programs.
"""
