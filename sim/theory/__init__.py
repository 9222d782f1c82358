"""Closed forms: what queueing theory says the engine must do, and how sure a number can be.

Three rooms: `queues` (one queue, many servers, patience, priorities), `batching` (an engine that
decodes many sequences a step, and its KV memory), `chance` (error rates that compound, intervals).
Nothing here simulates and nothing here imports the engine: an oracle must not know what it judges.

A queue that is offered more than it can serve has no mean: its functions return ``inf``.
Arguments that make no sense (negative rates, probabilities above 1) raise ``ValueError``.
"""

from sim.theory.batching import (
    Batch,
    Stepped,
    kv_block_steps,
    kv_mean_blocks,
    kv_stable_rate_per_s,
    kv_token_steps,
    stepped,
)
from sim.theory.chance import (
    at_least_one,
    beta_compound,
    bootstrap_interval,
    clopper_pearson,
    compound,
    controlled_interval,
    expected_bad,
    quantile_ranks,
    student_interval,
)
from sim.theory.queues import (
    LossQueue,
    PatientQueue,
    birth_death,
    cobham_waits_s,
    erlang_a,
    erlang_b,
    erlang_c,
    kingman_bound_s,
    kingman_wait_s,
    mg1_wait_s,
    mm1_sojourn_quantile_s,
    mm1_sojourn_s,
    mm1_wait_quantile_s,
    mm1_wait_variance,
    mmc_wait_quantile_s,
    mmc_wait_s,
    mmck,
    ps_sojourn_s,
)

__all__ = [
    "Batch",
    "LossQueue",
    "PatientQueue",
    "Stepped",
    "at_least_one",
    "beta_compound",
    "birth_death",
    "bootstrap_interval",
    "clopper_pearson",
    "cobham_waits_s",
    "compound",
    "controlled_interval",
    "erlang_a",
    "erlang_b",
    "erlang_c",
    "expected_bad",
    "kingman_bound_s",
    "kingman_wait_s",
    "kv_block_steps",
    "kv_mean_blocks",
    "kv_stable_rate_per_s",
    "kv_token_steps",
    "mg1_wait_s",
    "mm1_sojourn_quantile_s",
    "mm1_sojourn_s",
    "mm1_wait_quantile_s",
    "mm1_wait_variance",
    "mmc_wait_quantile_s",
    "mmc_wait_s",
    "mmck",
    "ps_sojourn_s",
    "quantile_ranks",
    "stepped",
    "student_interval",
]
