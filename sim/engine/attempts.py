"""One attempt on one replica: it joins a queue, and it leaves it or the batch, with or without its client."""

from sim.engine.account import close_state, complete_row, tokens_made, write_row
from sim.engine.admission import replica_admits
from sim.engine.batch import cut_stretch, enter_queue, plan_step, set_blocked
from sim.engine.jit import inlined, kernel
from sim.engine.kv_cache import give_back, stop_decoding
from sim.engine.queues import append_waiting, remove_running, remove_waiting
from sim.engine.routing import route
from sim.engine.state import BLOCKED_NOT, BLOCKED_SEAT, DECODE, FREE, NONE, PREFIX_AFFINITY, WAITING
from sim.engine.steptime import hash3, uniform
from sim.records import Outcome

_OK = int(Outcome.OK)
_FAILED = int(Outcome.FAILED)
_REJECTED = int(Outcome.REJECTED)
_TIMED_OUT = int(Outcome.TIMED_OUT)
SENT = -1  # no status yet: a replica has the attempt, or it is lost on its way
ATTEMPT_BITS = 6  # an attempt is known by (request, number of the attempt) in one integer


@inlined
def key_of(one, number):
    """Return the integer that stands for an attempt of a request: what is drawn for it is drawn by this."""
    return (one.request << ATTEMPT_BITS) | number


@kernel
def draw(w, key, purpose):
    """Return the number in (0, 1) that belongs to an attempt and a purpose, whatever else happens in the world."""
    return uniform(hash3(w.seed, key, purpose))


@inlined
def wake(reps, tree, r):
    """Tell the tournament of next wake-ups that replica *r* has another one."""
    k = (len(tree) // 2 + r) >> 1
    while k >= 1:
        left = tree[2 * k]
        right = tree[2 * k + 1]
        tree[k] = right if right != NONE and reps[right].wake_s < reps[left].wake_s else left
        k >>= 1


@kernel
def kick(w, pools, reps, r, seqs, cache, board, tab, tree, now_s):
    """Let an idle replica begin a step."""
    plan_step(w, pools, reps, r, seqs, cache, board, tab, now_s)
    wake(reps, tree, r)


@kernel
def text_of(w, cache, one):
    """Return what stands for the text that a prompt begins with: conversation or shared prefix; `NONE`: neither."""
    if one.session >= 0:
        return one.content
    node = cache[one.prefix].content if w.nodes and one.prefix != NONE else NONE
    return NONE if node == NONE else (1 << 60) + node


@inlined
def send(w, pools, reps, seqs, asked, clients, cache, board, tab, tree, a, number, now_s):
    """Let a replica have attempt *number* of the request; return the HTTP status in its way, or `SENT`."""
    one = asked[a]
    pool = pools[one.pool]
    longest = pool.max_len - one.prompt
    if longest < 1:
        return 400
    one.output = min(one.output, longest)
    key = key_of(one, number)
    text = text_of(w, cache, one) if pool.router == PREFIX_AFFINITY else 0
    avoid = NONE
    if number == one.twin_number and one.seq != NONE:
        avoid = seqs[one.seq].replica
    r = route(w, pool, reps, one, key, text, avoid, now_s)
    if r == NONE and avoid != NONE and reps[avoid].up:
        r = avoid
    if r == NONE or not reps[r].up:
        return 503
    rep = reps[r]
    if rep.lose > 0.0 and draw(w, key, 41) < rep.lose:
        return SENT
    if rep.refuse > 0.0 and draw(w, key, 42) < rep.refuse:
        return rep.refuse_status
    if not replica_admits(pool, clients[one.cohort], rep, seqs, one, now_s):
        return 429
    s = w.free_seq
    seq = seqs[s]
    w.free_seq = seq.next
    if number == one.number:
        one.seq = s
    else:
        one.twin = s
    begin_attempt(w, pool, rep, seq, one, a, r, number, now_s)
    join_queue(w, pools, reps, r, seqs, cache, board, tab, tree, s, now_s)
    return SENT


@inlined
def join_queue(w, pools, reps, r, seqs, cache, board, tab, tree, s, now_s):
    """Put the sequence into the replica's queue, and wake the replica if it is idle or can take it at its next step."""
    rep = reps[r]
    pool = pools[rep.pool]
    seq = seqs[s]
    rep.outstanding += 1
    pool.outstanding += 1
    w.attempts_live += 1
    w.attempts_started += 1
    if rep.blocked == BLOCKED_NOT and rep.running == pool.max_seqs:
        set_blocked(rep, BLOCKED_SEAT, now_s)  # the first to wait: it waits for a seat, not for a step to end
    seq.ahead = rep.waiting
    enter_queue(rep, seq, now_s)
    append_waiting(rep, seqs, s)
    if rep.hung:
        return
    if rep.steps_planned == 0:
        kick(w, pools, reps, r, seqs, cache, board, tab, tree, now_s)
    elif rep.steps_planned > 1 and seq.prev == NONE and rep.running < pool.max_seqs:
        cut_stretch(rep, now_s)
        wake(reps, tree, r)


@inlined
def begin_attempt(w, pool, rep, seq, one, a, r, number, now_s):
    """Set up a sequence for what its client asked."""
    seq.replica = r
    seq.request = a
    seq.state = WAITING
    seq.level = one.level
    seq.gone = 0
    seq.attempt = number
    seq.preemptions = 0
    seq.prefix = NONE
    seq.prefix_blocks = 0
    if pool.caching and one.prefix != NONE and one.prefix_tokens < one.prompt:
        seq.prefix = one.prefix
        seq.prefix_blocks = one.prefix_tokens // pool.block_size
    seq.shared = 0
    seq.content = one.content
    seq.prompt = one.prompt
    seq.output = one.output
    seq.stop = one.output
    if rep.cut > 0.0 and one.output > 1:
        key = key_of(one, number)
        if draw(w, key, 43) < rep.cut:
            seq.stop = 1 + int(draw(w, key, 44) * (one.output - 1))
    seq.done = 0
    seq.target = one.prompt
    seq.computed = 0
    seq.cached = 0
    seq.sent_s = now_s
    seq.admitted_s = -1.0
    seq.token_s = -1.0
    seq.lost_s = -1.0
    seq.seat_s = 0.0
    seq.kv_s = 0.0
    seq.step_s = 0.0
    seq.prefill_s = 0.0
    seq.decode_s = 0.0
    seq.alone_s = 0.0
    seq.preempted_s = 0.0
    seq.stall_s = 0.0


@kernel
def patient_until_s(pool, client, one, seq):
    """Return until when the client of an attempt waits for its answer, which may be on its way."""
    until_s = min(one.sent_s + client.timeout_s, one.scheduled_s + client.deadline_s)
    first_s = one.sent_s + client.first_token_s
    return until_s if seq.token_s + pool.egress_s <= first_s else min(until_s, first_s)


@inlined
def count_end(pool, outcome):
    """Count an attempt that has ended for the pool's operators; one that was called off is neither good nor bad."""
    if outcome == _OK:
        pool.answered += 1
    elif outcome in (_FAILED, _REJECTED, _TIMED_OUT):
        pool.errors += 1


@kernel
def write_attempt(w, pools, reps, seqs, asked, tab, rows, s, outcome, status, last, egress_s, now_s):
    """The client's story of an attempt on a replica is over, *egress_s* after the engine's: write its row."""
    seq = seqs[s]
    one = asked[seq.request]
    rep = reps[seq.replica]
    pool = pools[rep.pool]
    close_state(pool, rep, seq, tab, now_s)
    row = write_row(w, rows, one, seq.attempt, outcome, status, last, now_s + egress_s)
    complete_row(pool, row, one, seq, tokens_made(rep, seq, now_s), egress_s)
    seq.gone = 1
    w.attempts_live -= 1
    w.attempts_ended += 1
    count_end(pool, outcome)


@kernel
def leave_replica(w, pools, reps, seqs, cache, board, s):
    """Free the seat and the KV blocks of a sequence between two steps, and its slot."""
    seq = seqs[s]
    r = seq.replica
    rep = reps[r]
    pool = pools[rep.pool]
    if seq.state == WAITING:
        remove_waiting(rep, seqs, s)
    else:
        give_back(w, pool, rep, r, cache, seq, 0)
        if seq.state == DECODE:
            stop_decoding(w, pool, rep, r, seqs, s, board)
        elif rep.partial == s:
            rep.partial = NONE
        remove_running(rep, seqs, s)
    rep.outstanding -= 1
    pool.outstanding -= 1
    seq.state = FREE
    seq.next = w.free_seq
    w.free_seq = s


@kernel
def hang_up(w, pools, reps, seqs, cache, board, tab, tree, s, now_s):
    """The client of sequence *s* has gone: leave the queue at once, or the batch when the step ends.

    A replica that a fault left too few KV blocks for the first in line is idle: the next may fit.
    """
    seq = seqs[s]
    r = seq.replica
    rep = reps[r]
    if seq.state == WAITING:
        if seq.prev == NONE:
            cut_stretch(rep, now_s)  # the next in line may fit where this one did not
        leave_replica(w, pools, reps, seqs, cache, board, s)
        if rep.running == 0 and rep.waiting and not rep.hung:
            kick(w, pools, reps, r, seqs, cache, board, tab, tree, now_s)
    else:
        seq.abort = rep.aborts
        rep.aborts = s
        cut_stretch(rep, now_s)
    wake(reps, tree, r)
