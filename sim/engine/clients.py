"""Clients: they ask, wait, give up, try again, send a second copy, and ask the next thing.

A request is one thing that a user asked; it keeps its lengths through all attempts, because a retry that drew a new
length would heal storms that reality does not heal. It has at most one attempt in flight, or two when hedged.
"""

import math

from sim.engine.account import NOT_SENT, write_row
from sim.engine.admission import gateway_admits
from sim.engine.attempts import (
    ATTEMPT_BITS,
    SENT,
    count_end,
    draw,
    hang_up,
    key_of,
    patient_until_s,
    send,
    write_attempt,
)
from sim.engine.jit import inlined, kernel
from sim.engine.state import (
    ARRIVE,
    DEADLINE,
    DIVERSIONS,
    EQUAL_JITTER,
    FOLLOW_UP,
    FULL_JITTER,
    NONE,
    PATIENCE,
    RETRY,
)
from sim.engine.steptime import hash3
from sim.engine.timers import push_event, start_timer, start_try_timers, stop_timers, stop_try_timers
from sim.records import Answerer, Outcome

_OK = int(Outcome.OK)
_REJECTED = int(Outcome.REJECTED)
_TIMED_OUT = int(Outcome.TIMED_OUT)
_FAILED = int(Outcome.FAILED)
_CANCELLED = int(Outcome.CANCELLED)
_FALLBACK = int(Answerer.FALLBACK)
ASK_FOR_MORE = -2
LEFT = 499  # status of an attempt whose client went away (nginx: client closed request)
THROTTLE_S = 60.0
"""Mean age of what adaptive throttling remembers: that of the two minutes of the SRE book's sliding window."""
ONE_TOKEN = 1.0 - 1e-9  # ten tenths of a token are one
HEDGES_SAVED = 10.0  # hedges that a cohort may save up


@kernel
def ask(w, pools, asked, clients, events, row, now_s):
    """A user asks: take a slot for the request and begin its first attempt."""
    a = w.free_req
    one = asked[a]
    client = clients[row.cohort]
    w.free_req = one.next_free
    one.live = 1
    one.request = row.request
    one.session = row.session
    one.turn = row.turn
    one.follow_up = row.follow_up
    one.cohort = row.cohort
    one.pool = row.pool
    one.level = row.level
    one.wrong = row.wrong
    one.prefix = row.prefix if w.nodes else NONE
    one.prefix_tokens = row.prefix_tokens
    one.content = row.content
    one.prompt = max(1, int(row.prompt_tokens * client.prompt_factor + 0.5))
    one.output = max(1, int(row.output_tokens * client.output_factor + 0.5))
    one.scheduled_s = now_s
    one.attempts = 0
    one.tries = 0
    one.hedge_number = NONE
    one.backoff_s = 0.0
    w.live += 1
    w.live_max = max(w.live_max, w.live)
    w.started += 1
    client.budget_left = min(client.budget_burst, client.budget_left + client.budget)
    client.hedge_left = min(HEDGES_SAVED, client.hedge_left + client.hedge_share)
    if client.timed:
        start_timer(w, clients, asked, events, a, DEADLINE)
    if client.patience_s < math.inf:
        patience_s = client.patience_s
        if client.patience_exponential:
            patience_s *= -math.log(draw(w, one.request << ATTEMPT_BITS, 51))
        push_event(w, events, now_s + patience_s, PATIENCE, a, one.request << ATTEMPT_BITS)
    begin_try(w, pools, asked, clients, events, a, now_s)


@kernel
def begin_try(w, pools, asked, clients, events, a, now_s):
    """Send the request in slot *a* on its way, the first time or again."""
    one = asked[a]
    client = clients[one.cohort]
    one.number = one.attempts
    one.attempts += 1
    one.twin_number = NONE
    one.seq = NONE
    one.twin = NONE
    one.sent_s = now_s
    if divert(w, pools, one):
        w.due = a
        w.due_number = one.number
        w.due_rules = 1
        return
    if client.throttle > 0.0 and is_throttled(w, client, key_of(one, one.number), now_s):
        w.due = a
        w.due_number = one.number
        w.due_throttled = 1
        return
    if client.timed:
        start_try_timers(w, clients, asked, events, a)
    travel(w, pools, asked, events, a, one.number, now_s)


@kernel
def divert(w, pools, one):
    """Send the request to another pool, if its own diverts its like; tell whether rules answer it instead.

    What is drawn belongs to the request or its session: who is diverted at a share is diverted at any larger one.
    """
    pool = pools[one.pool]
    for k in range(DIVERSIONS):
        if pool.divert_below[k] == 0:
            break
        whose = one.request
        if pool.divert_sticky[k] and one.session >= 0:
            whose = (1 << 62) | one.session
        if hash3(w.seed, whose, 61 + k) < pool.divert_below[k]:
            if pool.divert_to[k] == NONE:
                return True
            one.pool = pool.divert_to[k]
            return False
    return False


@kernel
def is_throttled(w, client, key, now_s):
    """Tell whether the client refuses its own attempt (adaptive throttling, "Handling Overload", SRE book, chapter 21).

    The probability is (asked - K x taken) / (asked + 1), of what was asked and taken lately.
    """
    fade_throttle(client, now_s)
    chance = (client.throttle_asked - client.throttle * client.throttle_taken) / (client.throttle_asked + 1.0)
    client.throttle_asked += 1.0
    return draw(w, key, 52) < chance


@kernel
def fade_throttle(client, now_s):
    """Let what adaptive throttling remembers fade."""
    fade = math.exp((client.throttle_at_s - now_s) / THROTTLE_S)
    client.throttle_asked *= fade
    client.throttle_taken *= fade
    client.throttle_at_s = now_s


@kernel
def travel(w, pools, asked, events, a, number, now_s):
    """Bring an attempt to the gateway: at once, or after the pool's ingress time and a fault's delay."""
    one = asked[a]
    pool = pools[one.pool]
    ingress_s = pool.ingress_s + pool.delay_s
    if ingress_s > 0.0:
        push_event(w, events, now_s + ingress_s, ARRIVE, a, key_of(one, number))
        return
    w.due = a
    w.due_number = number


@inlined
def deliver(w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, now_s):
    """Let a replica have the attempt that is due at the gateway, or refuse it."""
    a = w.due
    number = w.due_number
    w.due = NONE
    one = asked[a]
    status = 429
    if w.due_rules:
        w.due_rules = 0
        end_copy(
            w, pools, reps, seqs, asked, clients, events, asks, tab, rows, a, number, _OK, 200, 0, 0.0, now_s
        )  # fmt: skip
        return
    if w.due_throttled:
        w.due_throttled = 0
        status = NOT_SENT
    elif gateway_admits(pools[one.pool], clients[one.cohort], one, now_s):
        status = send(w, pools, reps, seqs, asked, clients, cache, board, tab, tree, a, number, now_s)
    if status != SENT:
        outcome = _REJECTED if status < 500 else _FAILED
        end_copy(
            w, pools, reps, seqs, asked, clients, events, asks, tab, rows, a, number, outcome, status, 0, 0.0, now_s
        )  # fmt: skip


@kernel
def may_retry(client, one, outcome, status):
    """Tell whether the client tries again after such an end, and take it from its budget."""
    if outcome == _OK or one.tries >= client.retries or not (client.retry_on >> outcome) & 1 or status == 400:
        return False
    if client.budget < math.inf:
        if client.budget_left < ONE_TOKEN:
            return False
        client.budget_left -= 1.0
    return True


@kernel
def back_off(w, clients, asked, events, a, now_s):
    """Wait before the next attempt (exponential back-off; jitter as in AWS Architecture Blog, Brooker 2015)."""
    one = asked[a]
    client = clients[one.cohort]
    stop_try_timers(clients, asked, a)
    wait_s = min(client.backoff_max_s, client.backoff_s * client.backoff_factor**one.tries)
    if client.jitter == FULL_JITTER:
        wait_s *= draw(w, key_of(one, one.attempts), 53)
    elif client.jitter == EQUAL_JITTER:
        wait_s *= 0.5 + 0.5 * draw(w, key_of(one, one.attempts), 53)
    one.tries += 1
    one.number = NONE
    one.seq = NONE  # its slot may be somebody else's before this client is back
    one.backoff_s += wait_s
    one.twin_sent_s = now_s + wait_s
    push_event(w, events, now_s + wait_s, RETRY, a, key_of(one, one.attempts))


@kernel
def end_request(w, asked, clients, events, asks, a, outcome, now_s):
    """Count the request's one outcome, free its slot, and let its session go on."""
    one = asked[a]
    if clients[one.cohort].timed:
        stop_timers(clients, asked, a)
    w.outcomes[outcome] += 1
    clients[one.cohort].outcomes[outcome] += 1
    w.live -= 1
    one.live = 0
    one.next_free = w.free_req
    w.free_req = a
    if one.follow_up == ASK_FOR_MORE:
        asks[w.asks_n].session = one.session
        asks[w.asks_n].at_s = now_s
        w.asks_n += 1
    elif one.follow_up != NONE:
        push_event(w, events, now_s, FOLLOW_UP, one.follow_up, one.session)


@kernel
def end_copy(
    w, pools, reps, seqs, asked, clients, events, asks, tab, rows,
    a, number, outcome, status, final, egress_s, now_s,
):  # fmt: skip
    """Attempt *number* of the request has ended: next is its other copy, a retry (unless *final*), or the end."""
    one = asked[a]
    alone = one.twin_number == NONE
    s = one.seq if number == one.number else one.twin
    again = alone and not final and may_retry(clients[one.cohort], one, outcome, status)
    last = alone and not again
    if s == NONE:
        row = write_row(w, rows, one, number, outcome, status, last, now_s)
        if outcome == _OK:  # without a replica: by rules, at the gateway
            row.answerer = _FALLBACK
            row.first_token_s = now_s
        if status != NOT_SENT:
            count_end(pools[one.pool], outcome)
    else:
        write_attempt(w, pools, reps, seqs, asked, tab, rows, s, outcome, status, last, egress_s, now_s)
    if again:
        back_off(w, clients, asked, events, a, now_s + egress_s)
    elif last:
        end_request(w, asked, clients, events, asks, a, outcome, now_s + egress_s)
    else:
        if number == one.number:
            one.number = one.twin_number
            one.seq = one.twin
        one.twin_number = NONE
        one.twin = NONE


@inlined
def answer(w, pools, reps, seqs, asked, clients, events, asks, tab, rows, s, now_s):
    """The engine has made an attempt's last token: its client has an answer, if it is still there when that comes."""
    seq = seqs[s]
    one = asked[seq.request]
    client = clients[one.cohort]
    pool = pools[one.pool]
    outcome = _OK
    status = 200
    egress_s = pool.egress_s
    left_s = patient_until_s(pool, client, one, seq) - now_s
    if seq.stop < seq.output:
        outcome = _FAILED  # the stream broke off
        egress_s = 0.0
    elif egress_s > left_s:
        outcome = _TIMED_OUT
        status = LEFT
        egress_s = max(0.0, left_s)
    elif client.throttle > 0.0:
        fade_throttle(client, now_s)
        client.throttle_taken += 1.0
    if outcome == _OK:  # as `end_copy` does, by the shortest way: most attempts end like this
        write_attempt(w, pools, reps, seqs, asked, tab, rows, s, _OK, status, 1, egress_s, now_s)
        end_request(w, asked, clients, events, asks, seq.request, _OK, now_s + egress_s)
    else:
        end_copy(
            w, pools, reps, seqs, asked, clients, events, asks, tab, rows,
            seq.request, seq.attempt, outcome, status, 0, egress_s, now_s,
        )  # fmt: skip


@kernel
def give_up(
    w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, a, outcome, status, final, now_s
):  # fmt: skip
    """A client stops waiting for its attempt, or (*final*) for its request: it sees *outcome* now.

    The engine notices, or works on for nobody (`zombie`).
    """
    one = asked[a]
    client = clients[one.cohort]
    if one.number == NONE:  # between two attempts: the row of the one that was not sent
        one.number = one.attempts
        one.sent_s = now_s
        one.backoff_s = max(0.0, one.backoff_s - (one.twin_sent_s - now_s))
        status = NOT_SENT
    copies = 1 if one.twin_number == NONE else 2
    for _ in range(copies):
        number = one.number if one.twin_number == NONE else one.twin_number
        s = one.seq if one.twin_number == NONE else one.twin
        end_copy(
            w, pools, reps, seqs, asked, clients, events, asks, tab, rows,
            a, number, outcome, status, final, 0.0, now_s,
        )  # fmt: skip
        if s != NONE and not client.zombie:
            hang_up(w, pools, reps, seqs, cache, board, tab, tree, s, now_s)


@kernel
def decide_race(
    w, pools, reps, seqs, asked, clients, cache, events, asks, board, tab, tree, rows, s, now_s
):  # fmt: skip
    """The first token of a hedged request: the copy that sent it wins, the other is cancelled, or served for nobody."""
    a = seqs[s].request
    one = asked[a]
    loser = one.seq if s == one.twin else one.twin
    number = one.number if s == one.twin else one.twin_number
    end_copy(
        w, pools, reps, seqs, asked, clients, events, asks, tab, rows, a, number, _CANCELLED, LEFT, 1, 0.0, now_s
    )  # fmt: skip
    if loser != NONE and clients[one.cohort].hedge_cancel:
        hang_up(w, pools, reps, seqs, cache, board, tab, tree, loser, now_s)


@kernel
def has_token(pools, seqs, one, now_s):
    """Tell whether the client of a request has a token of its answer."""
    return (
        one.seq != NONE and seqs[one.seq].token_s >= 0.0 and seqs[one.seq].token_s + pools[one.pool].egress_s <= now_s
    )


@kernel
def hedge(w, pools, seqs, asked, clients, events, a, now_s):
    """Send a second copy of a request that has no token yet, if its cohort may ("The Tail at Scale", 2013).

    Not when its first token is on its way: that race is decided, and the copy would be cancelled before it is of use.
    """
    one = asked[a]
    client = clients[one.cohort]
    if one.seq != NONE and seqs[one.seq].token_s >= 0.0:
        return
    if client.hedge_left < ONE_TOKEN or one.attempts >= 1 << ATTEMPT_BITS:
        return
    client.hedge_left -= 1.0
    w.hedges += 1
    one.twin_number = one.attempts
    one.hedge_number = one.attempts
    one.attempts += 1
    one.twin_sent_s = now_s
    travel(w, pools, asked, events, a, one.twin_number, now_s)
