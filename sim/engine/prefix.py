"""Prefix cache: blocks whose text is still in memory when somebody asks for the same text again.

Rules of vLLM V1 (vllm/v1/core/kv_cache_manager.py and block_pool.py, 0.32): only full blocks are cached, known by
their text and all text before it; at least one token of a prompt is always computed; a sequence gives its blocks back
last block first; blocks that nobody uses wait in one queue, free of charge, and are evicted from its front when memory
is needed, after those that hold no cached text.

Blocks of a text are always given back and evicted from its end, so an entry here is not a block but the first so many
blocks of one text, evicted by count: the same blocks as one by one would give, at a cost that does not depend on how
many there are. Texts are nodes of a tree of shared prefixes (one entry a replica and node) and what follows them (one
entry a replica and ``content``, while it is in memory). Assumed: no two sequences on one replica use the same
``content`` at once; a copy that does is computed again.
"""

import numpy as np
from numpy.typing import NDArray

from sim.engine.jit import kernel
from sim.engine.state import NONE
from sim.engine.steptime import hash3


def route_by(parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the node by which routers know each node of a tree, given by its nodes' parents; `NONE`: by what follows.

    It is the node after the root, for a root is often one system prompt that all share, and whoever only shares such
    a root goes anywhere. A root with no node behind it is known by itself.
    """
    node = np.arange(len(parent))
    while len(deep := np.flatnonzero((parent[node] >= 0) & (parent[parent[node]] >= 0))):
        node[deep] = parent[node[deep]]
    node[(parent < 0) & np.isin(np.arange(len(parent)), parent)] = NONE
    return node


@kernel
def leaf_of(w, seq, r):
    """Return the entry of the sequence's node in the tree of shared prefixes, or `NONE`."""
    return NONE if seq.prefix == NONE else r * w.nodes + seq.prefix


@kernel
def bucket_of(cache, content, r):
    """Return the hash bucket of a text on a replica."""
    return int(hash3(np.uint64(17), content, r) & np.uint64(len(cache) - 1))


@kernel
def find_content(cache, content, r):
    """Return the entry of a text on replica *r*, or `NONE`."""
    e = cache[bucket_of(cache, content, r)].bucket
    while e != NONE and (cache[e].content != content or cache[e].replica != r):
        e = cache[e].chain
    return e


@kernel
def enqueue(rep, cache, e):
    """Put an entry that nobody uses any more last in line for eviction."""
    entry = cache[e]
    entry.prev = rep.lru_tail
    entry.next = NONE
    if rep.lru_tail == NONE:
        rep.lru_head = e
    else:
        cache[rep.lru_tail].next = e
    rep.lru_tail = e
    rep.cached_free += entry.blocks


@kernel
def dequeue(rep, cache, e):
    """Take an entry out of the line for eviction."""
    entry = cache[e]
    if entry.prev == NONE:
        rep.lru_head = entry.next
    else:
        cache[entry.prev].next = entry.next
    if entry.next == NONE:
        rep.lru_tail = entry.prev
    else:
        cache[entry.next].prev = entry.prev
    rep.cached_free -= entry.blocks


@kernel
def forget(w, cache, e):
    """Remove the entry of a text, which is in no queue, from the cache; entries of nodes stay."""
    if e < w.entries_from:
        return
    entry = cache[e]
    bucket = cache[bucket_of(cache, entry.content, entry.replica)]
    if bucket.bucket == e:
        bucket.bucket = entry.chain
    else:
        before = bucket.bucket
        while cache[before].chain != e:
            before = cache[before].chain
        cache[before].chain = entry.chain
    entry.blocks = 0
    entry.chain = w.free_entry
    w.free_entry = e
    w.entries_free += 1


@kernel
def store(w, rep, cache, r, content, blocks):
    """Keep the first *blocks* blocks of a text, which nobody uses any more."""
    old = find_content(cache, content, r)
    if old != NONE:
        dequeue(rep, cache, old)
        forget(w, cache, old)
    e = w.free_entry
    entry = cache[e]
    w.free_entry = entry.chain
    w.entries_free -= 1
    bucket = cache[bucket_of(cache, content, r)]
    entry.content = content
    entry.replica = r
    entry.parent = NONE
    entry.blocks = blocks
    entry.refs = 0
    entry.chain = bucket.bucket
    bucket.bucket = e
    enqueue(rep, cache, e)


@kernel
def evict(w, rep, cache):
    """Evict as many cached blocks as have been used for something else since the last look."""
    while rep.cached_free > max(0, rep.free_blocks):
        e = rep.lru_head
        entry = cache[e]
        blocks = min(entry.blocks, rep.cached_free - max(0, rep.free_blocks))
        entry.blocks -= blocks
        rep.cached_free -= blocks
        if entry.blocks == 0:
            dequeue(rep, cache, e)
            forget(w, cache, e)


@kernel
def wipe(w, rep, cache):
    """Evict everything that nobody uses: a replica that starts again starts cold."""
    while rep.lru_head != NONE:
        e = rep.lru_head
        dequeue(rep, cache, e)
        cache[e].blocks = 0
        forget(w, cache, e)


@kernel
def find(w, pool, rep, r, cache, seq):
    """Return how many leading blocks of the sequence are cached, and how many of those are free meanwhile."""
    evict(w, rep, cache)
    hits = 0
    idle = 0
    whole = True
    e = leaf_of(w, seq, r)
    while e != NONE:
        node = cache[e]
        if node.blocks < node.full:
            whole = False
            hits = 0
            idle = 0
        hits += node.blocks
        if node.refs == 0:
            idle += node.blocks
        e = node.parent
    if whole:
        e = find_content(cache, seq.content, r)
        if e != NONE:
            own = min(cache[e].blocks, (seq.target - 1) // pool.block_size - hits)
            hits += own
            idle += own
    return hits, idle


@kernel
def claim(w, pool, rep, r, cache, seq, hits):
    """Let the sequence use the *hits* blocks that `find` found, and hold its prefix in memory."""
    e = leaf_of(w, seq, r)
    while e != NONE:
        node = cache[e]
        if node.refs == 0 and node.blocks:
            dequeue(rep, cache, e)
            rep.free_blocks -= node.blocks
        node.refs += 1
        e = node.parent
    seq.shared = min(hits, seq.prefix_blocks)
    if hits > seq.shared:
        e = find_content(cache, seq.content, r)
        dequeue(rep, cache, e)
        forget(w, cache, e)
        rep.free_blocks -= hits - seq.shared
    seq.computed = hits * pool.block_size


@kernel
def register(w, pool, r, cache, seq):
    """Let others find the blocks of shared prefixes that the sequence computes, from when they are scheduled."""
    full = seq.computed // pool.block_size
    e = leaf_of(w, seq, r)
    while e != NONE:
        node = cache[e]
        blocks = min(full - node.begin, node.full)
        if blocks > node.blocks:
            seq.shared += blocks - node.blocks
            node.blocks = blocks
        e = node.parent


@kernel
def release(w, pool, rep, r, cache, seq, tokens, blocks):
    """Give back the *blocks* blocks of a sequence; those full of its *tokens* stay cached until they are evicted."""
    evict(w, rep, cache)
    rep.free_blocks += blocks - seq.shared
    own = tokens // pool.block_size - seq.prefix_blocks
    if own > 0:
        store(w, rep, cache, r, seq.content, own)
    e = leaf_of(w, seq, r)
    while e != NONE:
        node = cache[e]
        node.refs -= 1
        if node.refs == 0 and node.blocks:
            rep.free_blocks += node.blocks
            enqueue(rep, cache, e)
        e = node.parent
    seq.shared = 0


@kernel
def rehash(w, cache):
    """Sort all entries of texts into their buckets again, after the cache has grown."""
    for k in range(len(cache)):
        cache[k].bucket = NONE
    w.free_entry = NONE
    w.entries_free = 0
    for back in range(len(cache) - w.entries_from):
        e = len(cache) - 1 - back
        entry = cache[e]
        if entry.blocks > 0:
            bucket = cache[bucket_of(cache, entry.content, entry.replica)]
            entry.chain = bucket.bucket
            bucket.bucket = e
        else:
            entry.chain = w.free_entry
            w.free_entry = e
            w.entries_free += 1


@kernel
def count_shared(w, cache, r):
    """Return the blocks of shared prefixes that sequences on replica *r* use."""
    used = 0
    for k in range(w.nodes):
        if cache[r * w.nodes + k].refs:
            used += cache[r * w.nodes + k].blocks
    return used


@kernel
def count_cached(rep, cache):
    """Return the cached blocks that nobody uses, counted entry by entry."""
    blocks = 0
    e = rep.lru_head
    while e != NONE:
        blocks += cache[e].blocks
        e = cache[e].next
    return blocks
