"""One replica's life: plan a step, let it end, plan the next (vLLM V1, vllm/v1/core/sched/scheduler.py).

There is no prefill phase and no decode phase: every running sequence has tokens that the engine knows
and tokens that it has computed, and a step lets the second catch up with the first, within
`max_num_batched_tokens`. Running sequences come first, in order; then waiting ones while there are seats,
token budget and KV blocks, and none at all in a step that preempted. Because a sequence that got less
than it wanted has used up the budget, at most one prompt is partly computed at a time (`partial`).
"""

import math

from sim.engine.admission import note_wait
from sim.engine.jit import inlined, kernel
from sim.engine.kv_cache import (
    blocks_for,
    close_prefill,
    grow_decoding,
    growth,
    preempt_last,
    stalled,
)
from sim.engine.prefix import claim, find, register
from sim.engine.queues import (
    append_running,
    first_waiting,
    put_in_bucket,
    remove_waiting,
    steps_to_finish,
)
from sim.engine.state import (
    BLOCKED_KV,
    BLOCKED_NOT,
    BLOCKED_SEAT,
    DECODE,
    NONE,
    PREFILL,
)
from sim.engine.steptime import decode_line, step_factor, steps_begun, stretch_end


@inlined
def settle(rep, now_s):
    """Bring the replica's integrals of lost time up to *now_s* (only when what blocks it changes)."""
    dt = now_s - rep.since_s
    running = dt / rep.slow
    rep.stall_s += dt - running
    if rep.blocked == BLOCKED_SEAT:
        rep.seat_s += running
    elif rep.blocked == BLOCKED_KV:
        rep.kv_s += running
    rep.since_s = now_s


@inlined
def set_blocked(rep, why, now_s):
    """Say why the head of the queue is not admitted, from *now_s* on."""
    if rep.blocked != why:
        settle(rep, now_s)
        rep.blocked = why


@kernel
def enter_queue(rep, seq, now_s):
    """Remember what the replica's integrals were when the sequence joined the queue."""
    dt = (now_s - rep.since_s) / rep.slow
    seq.seat0_s = rep.seat_s + (dt if rep.blocked == BLOCKED_SEAT else 0.0)
    seq.kv0_s = rep.kv_s + (dt if rep.blocked == BLOCKED_KV else 0.0)
    seq.stall0_s = stalled(rep, now_s)
    seq.mark_s = now_s


@kernel
def leave_queue(rep, seq, now_s):
    """Book the time in the queue to what blocked it; a preempted sequence books it as preemption."""
    if seq.lost_s < 0.0:
        dt = (now_s - rep.since_s) / rep.slow
        seat = rep.seat_s + (dt if rep.blocked == BLOCKED_SEAT else 0.0) - seq.seat0_s
        kv = rep.kv_s + (dt if rep.blocked == BLOCKED_KV else 0.0) - seq.kv0_s
        stall = stalled(rep, now_s) - seq.stall0_s
        seq.seat_s += seat
        seq.kv_s += kv
        seq.stall_s += stall
        seq.step_s += now_s - seq.mark_s - seat - kv - stall
    seq.mark_s = now_s
    seq.stall0_s = stalled(rep, now_s)


@kernel
def schedule_prompt(w, pool, rep, r, seqs, cache, s, tokens):
    """Let the step compute *tokens* more of the known tokens of sequence *s*.

    Return how many pairs of one of them and a token that it attends to there are.
    """
    seq = seqs[s]
    pairs = tokens * (seq.computed + 0.5 * tokens)
    seq.computed += tokens
    if seq.computed == seq.target:
        if rep.ready == NONE:
            rep.ready = s
        else:
            seqs[rep.ready_last].link = s
        rep.ready_last = s
        seq.link = NONE
        rep.partial = NONE
    else:
        rep.partial = s
    rep.prefill_now += tokens
    rep.prompt_tokens += tokens
    if seq.preemptions:
        w.recomputed += tokens
    if pool.caching:
        register(w, pool, r, cache, seq)
    return pairs


@kernel
def continue_prompt(w, pool, rep, r, seqs, cache, board, tab, budget, now_s):
    """Schedule the next chunk of the one partly computed prompt, preempting from the end if blocks lack."""
    s = rep.partial
    seq = seqs[s]
    tokens = min(seq.target - seq.computed, budget)
    held = blocks_for(seq.computed, pool.block_size)
    need = blocks_for(seq.computed + tokens, pool.block_size) - held
    while need > rep.free_blocks:
        if preempt_last(w, pool, rep, r, seqs, cache, board, tab, 1, now_s) == s:
            return 0.0
    rep.free_blocks -= need
    return schedule_prompt(w, pool, rep, r, seqs, cache, s, tokens)


@kernel
def admit_waiting(w, pool, rep, r, seqs, cache, budget, now_s):
    """Admit waiting sequences in order until seats, token budget or KV blocks end; return the attention pairs.

    With `reserve_full` a sequence is admitted only if all of its known tokens would fit
    (`scheduler_reserve_full_isl` of vLLM 0.32), though only this step's blocks are taken.
    """
    pairs = 0.0
    why = BLOCKED_NOT
    while rep.waiting:
        if rep.running == pool.max_seqs:
            why = BLOCKED_SEAT
            break
        if budget <= 0:
            break
        s = first_waiting(rep)
        seq = seqs[s]
        hits = 0
        idle = 0
        if pool.caching:
            hits, idle = find(w, pool, rep, r, cache, seq)
        cached = hits * pool.block_size
        if seq.target - cached > budget and not pool.chunked:
            break
        tokens = min(seq.target - cached, budget)
        fits = seq.target if pool.reserve_full else cached + tokens
        margin = pool.watermark if rep.running else 0
        if blocks_for(fits, pool.block_size) - hits + idle + margin > rep.free_blocks:
            why = BLOCKED_KV
            break
        leave_queue(rep, seq, now_s)
        remove_waiting(rep, seqs, s)
        append_running(rep, seqs, s)
        seq.state = PREFILL
        if pool.caching:
            claim(w, pool, rep, r, cache, seq, hits)
        if seq.admitted_s < 0.0:
            seq.admitted_s = now_s
            seq.cached = cached
            note_wait(rep, seq, now_s)
            if pool.caching:
                rep.prompt_seen += seq.prompt
                rep.prompt_cached += cached
        rep.free_blocks -= blocks_for(cached + tokens, pool.block_size) - hits
        pairs += schedule_prompt(w, pool, rep, r, seqs, cache, s, tokens)
        budget -= tokens
    set_blocked(rep, why, now_s)
    return pairs


@inlined
def plan_step(w, pools, reps, r, seqs, cache, board, tab, now_s):
    """Schedule the next step of replica *r* at *now_s*, or as many as are sure to be alike."""
    rep = reps[r]
    pool = pools[rep.pool]
    if rep.slow != rep.slow_next:
        settle(rep, now_s)
        rep.slow = rep.slow_next
        rep.fresh = 1
    rep.preempted = 0
    rep.prefill_now = 0
    if rep.decoding:
        grow_decoding(w, pool, rep, r, seqs, cache, board, tab, now_s)
    budget = pool.max_tokens - rep.decoding
    pairs = 0.0
    if rep.partial != NONE:
        pairs += continue_prompt(w, pool, rep, r, seqs, cache, board, tab, budget, now_s)
        budget -= rep.prefill_now
    if rep.preempted:
        set_blocked(rep, BLOCKED_KV, now_s)
    elif rep.waiting:
        pairs += admit_waiting(w, pool, rep, r, seqs, cache, budget, now_s)
    else:
        set_blocked(rep, BLOCKED_NOT, now_s)
    if rep.running == 0:
        rep.steps_planned = 0
        rep.wake_s = math.inf
        rep.fresh = 1
        return
    time_step(w, pool, rep, r, tab, pairs, now_s)
    rep.steps_planned = 1
    if w.leap and rep.prefill_now == 0 and not rep.preempted and not rep.fresh:
        rep.steps_planned = stretch_length(w, pool, rep, r, board)
    rep.wake_s = stretch_end(rep, rep.step - rep.anchor_step + rep.steps_planned)


@inlined
def time_step(w, pool, rep, r, tab, pairs, now_s):
    """Work out how long the next step is; keep the straight line of the last anchor while it holds."""
    noisy = pool.noise > 0.0 or pool.slow_noise > 0.0 or w.pace_n > 0
    if not (rep.fresh or noisy or rep.prefill_now or rep.step >= rep.cell_end):
        return
    time = pool.base_s
    if rep.prefill_now:  # beside decoding tokens, prompt tokens hide no more work than alone
        alone = tab[pool.tokens_at + rep.prefill_now] - tab[pool.tokens_at]
        work = pool.tokens_at + rep.decoding
        time += max(alone, tab[work + rep.prefill_now] - tab[work]) + pool.prefill_ctx_s * pairs
    slope = 0.0
    steps = 1
    if rep.decoding:
        decode, slope, steps = decode_line(pool, tab, rep.decoding, rep.context)
        time += decode
    factor = rep.slow
    extra = 0.0
    if noisy:
        factor *= step_factor(w, pool, rep, r, tab, now_s)
        if w.pace_n:
            extra = tab[w.pace_at + 3 * w.pace_next + 2]
    rep.anchor_s = now_s
    rep.anchor_step = rep.step
    rep.first_s = time * factor + extra
    rep.growth_s = slope * factor
    rep.cell_end = rep.step + steps
    rep.fresh = 1 if (noisy or rep.prefill_now) else 0


@inlined
def stretch_length(w, pool, rep, r, board):
    """Return how many steps from now are sure to be alike: no finish, no shortage, one straight line."""
    steps = min(steps_to_finish(w, board, r, rep.step), rep.cell_end - rep.step)
    spare = rep.free_blocks
    if rep.decoding * (steps // pool.block_size + 1) <= spare:
        return steps
    for k in range(2, steps + 1):  # the first step has its blocks already
        spare -= board[r, (rep.step + k) % pool.block_size]
        if spare < 0:
            return k - 1
    return steps


@inlined
def cut_stretch(rep, now_s):
    """End the planned stretch with the step that runs at *now_s*, so that the next one can change."""
    if rep.steps_planned > 1:
        rep.steps_planned = steps_begun(rep, now_s)
        rep.wake_s = stretch_end(rep, rep.step - rep.anchor_step + rep.steps_planned)


@kernel
def begin_decode(w, pool, rep, r, seqs, s, board, now_s):
    """Let sequence *s*, whose known tokens are all computed, make its next token and join the decoding."""
    seq = seqs[s]
    close_prefill(rep, seq, now_s)
    if seq.lost_s >= 0.0:
        seq.preempted_s += now_s - seq.lost_s
        seq.lost_s = -1.0
    if seq.token_s < 0.0:
        seq.token_s = now_s
    seq.mark_s = now_s
    seq.stall0_s = stalled(rep, now_s)
    seq.state = DECODE
    seq.begin_step = rep.step
    seq.finish_step = rep.step + seq.stop - seq.done - 1
    rep.output_tokens += 1
    rep.decoding += 1
    rep.context += seq.target
    rep.fresh = 1
    board[r, (rep.step + 1 - seq.target) % pool.block_size] += 1
    put_in_bucket(w, board, r, seqs, s)


@inlined
def pass_steps(w, rep, steps):
    """Count *steps* of the planned steps as played: tokens and context of the decoding batch."""
    rep.step += steps
    rep.context += steps * rep.decoding
    rep.output_tokens += steps * rep.decoding
    rep.steps_planned -= steps
    w.steps += steps


@inlined
def end_steps(w, pool, rep, r, board):
    """Count all planned steps as played, and the blocks that they took. Return how many."""
    steps = rep.steps_planned
    if steps > 1:
        rep.free_blocks -= growth(board, r, pool.block_size, rep.decoding, rep.step + 1, steps - 1)
    pass_steps(w, rep, steps)
    w.stretches += 1
    return steps


@kernel
def blocks_in_use(pool, rep, r, board, now_s):
    """Return the KV blocks held while the step at *now_s* runs."""
    used = pool.blocks - rep.taken_blocks - rep.free_blocks
    if rep.steps_planned > 1:
        begun = steps_begun(rep, now_s)
        used += growth(board, r, pool.block_size, rep.decoding, rep.step + 1, begun - 1)
    return used
