"""One run on several processors: processes that each run an ordinary crawl, and one that holds them together.

    supervisor.py   starts the shards, starts one again that dies, carries what they send each other, ends the run
    worker.py       what runs in each shard: a Crawler over the shard's part of the settings and its own frontier
    forkserver.py   what the shards are forked off, and preload.py, what that imports
    budget.py       a shard's part of the settings
    collector.py    takes what the shards have committed into the outputs that the user named
    tally.py        divides crawl.max_pages among them
    errand.py       what one fetches for a callback in another
    channel.py      messages between two processes

The shards' frontiers, and what makes links between them exact, are in ``frontiers/sharded.py``.
"""
