"""What became of an attempt: its row, its place in the histograms, and where its time went."""

import math

from sim.engine.batch import leave_queue
from sim.engine.jit import inlined, kernel
from sim.engine.kv_cache import close_decode, close_prefill
from sim.engine.meters import meter_attempt, meter_steps
from sim.engine.state import BIN_LOW_S, BIN_RATIO, BINS, DECODE, E2E, ITL, QUEUE, TPOT, TTFT, WAITING
from sim.engine.steptime import hash3, steps_ended, stretch_end
from sim.records import Answerer, Outcome

_OK = int(Outcome.OK)
_TIMED_OUT = int(Outcome.TIMED_OUT)
_UNFINISHED = int(Outcome.UNFINISHED)
_MODEL = int(Answerer.MODEL)
_FALLBACK = int(Answerer.FALLBACK)
_NOBODY = int(Answerer.NOBODY)
_LOG_LOW = math.log(BIN_LOW_S)
_PER_LOG = 1.0 / math.log(BIN_RATIO)
_SAMPLE_ROWS = 1
_ALL_ROWS = 2
NOT_SENT = 0  # status of an attempt that its client did not send, or that had no answer when the run ended


@inlined
def bin_of(value_s):
    """Return the histogram bin of a time: steps of 1% from 10 us."""
    if value_s <= BIN_LOW_S:
        return 0
    return min(BINS - 1, int((math.log(value_s) - _LOG_LOW) * _PER_LOG))


@inlined
def count_steps(w, rep, meter, latency, steps, now_s):
    """Add the *steps* step times up to *now_s* to the inter-token latencies of the decoding batch.

    One entry a decoding sequence and step, in the row after the last cohort's; steps of a stretch that share a
    bin are added at once. Steps that ended before the warm-up did are left out.
    """
    done = rep.step - rep.anchor_step - steps
    if w.metered:
        meter_steps(rep, meter, done, steps)
        meter.held_s = 0.0
    if now_s < w.warmup_s:
        return
    first = rep.first_s + done * rep.growth_s
    k = 0
    while k < steps and stretch_end(rep, done + k + 1) < w.warmup_s:  # only in the stretch that spans its end
        k += 1
    while k < steps:
        b = bin_of(first + k * rep.growth_s)
        after = steps
        if b != bin_of(first + (steps - 1) * rep.growth_s):  # where the stretch leaves this bin
            edge = BIN_LOW_S * math.exp((b + 1) / _PER_LOG)
            after = min(steps, max(k + 1, int((edge - first) / rep.growth_s) + 1))
            while after > k + 1 and bin_of(first + (after - 1) * rep.growth_s) != b:
                after -= 1
            while after < steps and bin_of(first + after * rep.growth_s) == b:
                after += 1
        latency[w.cohorts, ITL, b] += rep.decoding * (after - k)
        k = after


@kernel
def close_state(pool, rep, seq, tab, now_s):
    """Book the time of the sequence's present state up to *now_s*, when its client's story ends."""
    if seq.state == WAITING:
        leave_queue(rep, seq, now_s)
    elif seq.state == DECODE:
        close_decode(pool, rep, seq, tab, now_s)
    else:
        close_prefill(rep, seq, now_s)
    if seq.lost_s >= 0.0:
        seq.preempted_s += now_s - seq.lost_s


@kernel
def tokens_made(rep, seq, now_s):
    """Return the output tokens that the sequence has made by *now_s*."""
    if seq.state == DECODE:
        return seq.done + 1 + (steps_ended(rep, now_s) - seq.begin_step)
    return seq.done


@kernel
def is_sampled(w, request):
    """Tell whether the rows of this request are kept."""
    if w.row_mode == _ALL_ROWS:
        return True
    return w.row_mode == _SAMPLE_ROWS and hash3(w.seed, request, 7) < w.row_below


@kernel
def write_row(w, rows, one, number, outcome, status, last, now_s):
    """Start the row of attempt *number* with what its client asked and saw; return it."""
    row = rows[w.rows_n]
    w.rows_n += 1
    second = number == one.hedge_number
    row.request = one.request
    row.session = one.session
    row.turn = one.turn
    row.attempt = number
    row.cohort = one.cohort
    row.pool = one.pool
    row.replica = -1
    row.level = one.level
    row.outcome = outcome
    row.answerer = _MODEL if outcome == _OK else _NOBODY
    row.wrong = one.wrong if outcome == _OK else 0
    row.status = status
    row.preemptions = 0
    row.last = last
    row.hedge = second
    row.prompt_tokens = one.prompt
    row.cached_tokens = 0
    row.output_tokens = 0
    row.scheduled_s = one.scheduled_s
    row.sent_s = one.twin_sent_s if second else one.sent_s
    row.admitted_s = math.nan
    row.first_token_s = math.nan
    row.finished_s = now_s
    row.client_wait_s = now_s - one.scheduled_s - one.backoff_s
    row.backoff_s = one.backoff_s
    row.seat_wait_s = 0.0
    row.kv_wait_s = 0.0
    row.step_wait_s = 0.0
    row.prefill_s = 0.0
    row.decode_alone_s = 0.0
    row.decode_slowed_s = 0.0
    row.preempted_s = 0.0
    row.fault_stall_s = 0.0
    return row


@kernel
def complete_row(pool, row, one, seq, tokens, egress_s):
    """Fill in what the engine did for the attempt; times are as the client saw them."""
    row.replica = seq.replica
    if row.outcome == _OK and pool.fallback:
        row.answerer = _FALLBACK
    row.preemptions = seq.preemptions
    row.cached_tokens = seq.cached
    if seq.admitted_s >= 0.0:
        row.admitted_s = seq.admitted_s
    if seq.token_s >= 0.0 and seq.token_s + pool.egress_s <= row.finished_s:  # else none arrived in time
        row.first_token_s = seq.token_s + pool.egress_s
        row.output_tokens = tokens
    alone = min(seq.alone_s, seq.decode_s)
    row.client_wait_s = seq.sent_s - row.scheduled_s - one.backoff_s + egress_s
    row.seat_wait_s = seq.seat_s
    row.kv_wait_s = seq.kv_s
    row.step_wait_s = max(0.0, seq.step_s)
    row.prefill_s = seq.prefill_s
    row.decode_alone_s = alone
    row.decode_slowed_s = seq.decode_s - alone
    row.preempted_s = seq.preempted_s
    row.fault_stall_s = seq.stall_s


@kernel
def count_rows(w, rows, ended, gates, latency, windows, minutes, parts):
    """Count the rows written since the last time, and drop those that are not kept; hand out how requests ended."""
    kept = w.counted
    for k in range(w.counted, w.rows_n):
        row = rows[k]
        if row.status != NOT_SENT:
            minutes[min(len(minutes) - 1, int(row.sent_s / 60.0)), 4] += 1
            if w.metered:
                meter_attempt(w, gates[row.pool], row)
        if row.last:
            count_request(w, row, latency, windows, minutes, parts)
            if w.judged:
                ended[w.ended_n] = row
                w.ended_n += 1
        if is_sampled(w, row.request):
            if kept < k:
                rows[kept] = row
            kept += 1
    w.rows_n = kept
    w.counted = kept


@kernel
def count_request(w, row, latency, windows, minutes, parts):
    """Count one ended request, by the row that decided it: by the minute and window of its arrival, and by latency.

    An unanswered request counts with the time it has waited so far, so that stuck requests are not
    invisible; one that was refused, failed or cancelled counts as an error and not as a latency.
    """
    minute = min(len(minutes) - 2, int(row.scheduled_s / 60.0))
    minutes[minute, 0] += 1
    if row.outcome == _OK:
        minutes[minute, 1] += 1
        minutes[minute, 2] += row.wrong
    else:
        minutes[minute, 3] += 1
        if row.outcome != _TIMED_OUT and row.outcome != _UNFINISHED:
            return
    e2e_s = row.finished_s - row.scheduled_s
    ttft_s = e2e_s if math.isnan(row.first_token_s) else row.first_token_s - row.scheduled_s
    minutes[minute, 5] += ttft_s > w.slow_ttft_s
    minutes[minute, 6] += e2e_s > w.slow_e2e_s
    by_ttft = bin_of(ttft_s)
    by_e2e = bin_of(e2e_s)
    window = min(windows.shape[1] - 1, int(row.scheduled_s / w.window_s))
    windows[0, window, by_ttft] += 1
    windows[1, window, by_e2e] += 1
    if row.scheduled_s < w.warmup_s:
        return
    c = row.cohort
    latency[c, TTFT, by_ttft] += 1
    latency[c, E2E, by_e2e] += 1
    queue_s = row.finished_s if math.isnan(row.admitted_s) else row.admitted_s
    latency[c, QUEUE, bin_of(queue_s - row.scheduled_s)] += 1
    if row.output_tokens > 1:
        latency[c, TPOT, bin_of((row.finished_s - row.first_token_s) / (row.output_tokens - 1))] += 1
    parts[by_ttft, 0] += row.client_wait_s
    parts[by_ttft, 1] += row.backoff_s
    parts[by_ttft, 2] += row.seat_wait_s
    parts[by_ttft, 3] += row.kv_wait_s
    parts[by_ttft, 4] += row.step_wait_s
    parts[by_ttft, 5] += row.prefill_s
    parts[by_ttft, 6] += row.decode_alone_s
    parts[by_ttft, 7] += row.decode_slowed_s
    parts[by_ttft, 8] += row.preempted_s
    parts[by_ttft, 9] += row.fault_stall_s
    # Preemptions and stalls may fall on either side of the first token: what the other parts leave of TTFT is theirs.
    before_s = row.client_wait_s + row.backoff_s + row.seat_wait_s + row.kv_wait_s + row.step_wait_s + row.prefill_s
    stalled_s = min(max(0.0, ttft_s - before_s), row.fault_stall_s)
    parts[by_ttft, 10] += min(max(0.0, ttft_s - before_s - stalled_s), row.preempted_s)
    parts[by_ttft, 11] += stalled_s
