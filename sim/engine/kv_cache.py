"""Paged KV memory: who holds how many blocks, and who gives them back when they run short.

Rules of vLLM V1 (vllm/v1/core/sched/scheduler.py and kv_cache_manager.py, 0.32): a block is taken when a
token is scheduled into it; when none is free the newest sequence of the lowest priority loses all of its
blocks, keeps the tokens it made, and goes to the front of the queue to compute them again.

A decoding sequence needs a block every `block_size` steps, always at the same residue of the step counter,
so one counter for each residue tells what the next step needs, whatever the size of the batch.
"""

from sim.engine.jit import inlined, kernel
from sim.engine.prefix import release
from sim.engine.queues import last_running, push_waiting, remove_running, take_from_bucket
from sim.engine.state import DECODE, NONE, WAITING
from sim.engine.steptime import steps_ended


@kernel
def blocks_for(tokens, block_size):
    """Return the blocks that *tokens* tokens fill, the last one perhaps in part."""
    return (tokens + block_size - 1) // block_size


@inlined
def tokens_held(rep, seq):
    """Return how many of the sequence's tokens are in the KV cache once the step in flight has ended."""
    if seq.state == DECODE:
        return seq.target + (rep.step - seq.begin_step)
    return seq.computed


@inlined
def growth(board, r, block_size, decoding, step, steps):
    """Return the blocks that the *steps* steps after *step* take for decoding sequences."""
    laps = steps // block_size
    blocks = laps * decoding
    for k in range(laps * block_size + 1, steps + 1):
        blocks += board[r, (step + k) % block_size]
    return blocks


@inlined
def residue(seq, block_size):
    """Return the residue of the steps at which the decoding sequence takes a block."""
    return (seq.begin_step + 1 - seq.target) % block_size


@inlined
def stop_decoding(w, pool, rep, r, seqs, s, board):
    """Take sequence *s* off the counters of the decoding batch."""
    seq = seqs[s]
    take_from_bucket(w, board, r, seqs, s)
    board[r, residue(seq, pool.block_size)] -= 1
    rep.decoding -= 1
    rep.context -= tokens_held(rep, seq)
    rep.fresh = 1


@kernel
def stalled(rep, now_s):
    """Return the replica's integral of time lost to faults, up to *now_s*."""
    dt = now_s - rep.since_s
    return rep.stall_s + (dt - dt / rep.slow)  # rounded as `batch.settle` does, so that no difference is below 0


@kernel
def close_prefill(rep, seq, now_s):
    """Book the time since the sequence was admitted: prefill, or regaining what preemption took."""
    stall = stalled(rep, now_s) - seq.stall0_s
    if seq.lost_s >= 0.0:
        return
    seq.prefill_s += now_s - seq.mark_s - stall
    seq.stall_s += stall


@kernel
def close_decode(pool, rep, seq, tab, now_s):
    """Book the time since the sequence began to decode, and what it would have been alone in the batch."""
    stall = stalled(rep, now_s) - seq.stall0_s
    seq.decode_s += now_s - seq.mark_s - stall
    seq.stall_s += stall
    alone = pool.alone_at + seq.target
    seq.alone_s += tab[alone + (steps_ended(rep, now_s) - seq.begin_step)] - tab[alone]


@kernel
def give_back(w, pool, rep, r, cache, seq, grown):
    """Free the blocks of a running sequence; *grown* is 1 when it already has the block for one token more."""
    tokens = tokens_held(rep, seq)
    blocks = blocks_for(tokens + grown, pool.block_size)
    if pool.caching:
        release(w, pool, rep, r, cache, seq, tokens, blocks)
    else:
        rep.free_blocks += blocks


@kernel
def preempt_last(w, pool, rep, r, seqs, cache, board, tab, grown, now_s):
    """Preempt the newest sequence of the lowest priority; its tokens will be computed again. Return it.

    *grown* is 1 when decoding sequences already have the block for the step being planned, else 0.
    """
    s = last_running(rep)
    seq = seqs[s]
    if seq.state == DECODE:
        give_back(w, pool, rep, r, cache, seq, grown)
        close_decode(pool, rep, seq, tab, now_s)
        stop_decoding(w, pool, rep, r, seqs, s, board)
        seq.done += 1 + (rep.step - seq.begin_step)
        seq.target = seq.prompt + seq.done
    else:
        give_back(w, pool, rep, r, cache, seq, 0)
        close_prefill(rep, seq, now_s)
        rep.partial = NONE
    if seq.lost_s < 0.0:
        seq.lost_s = now_s
    seq.state = WAITING
    seq.computed = 0
    seq.preemptions += 1
    rep.preemptions += 1
    rep.preempted = 1
    remove_running(rep, seqs, s)
    push_waiting(rep, seqs, s)
    return s


@inlined
def grow_decoding(w, pool, rep, r, seqs, cache, board, tab, now_s):
    """Take the blocks that the next step's tokens need, preempting from the end of the batch if they lack.

    vLLM walks the batch in order and preempts whenever one sequence finds no block; the survivors are the
    same as here, where the need of the whole batch is compared with what is free.
    """
    column = (rep.step + 1) % pool.block_size
    while board[r, column] > rep.free_blocks:
        preempt_last(w, pool, rep, r, seqs, cache, board, tab, 0, now_s)
    rep.free_blocks -= board[r, column]
