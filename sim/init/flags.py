"""What vLLM's flags mean to a scenario: fields, reasons why not, and flags that change nothing that is simulated.

Names, short forms and number suffixes as in vLLM's vllm/engine/arg_utils.py, vllm/config/scheduler.py and
vllm/utils/argparse_utils.py (0.11 to 0.32). Nothing of vLLM is imported.
"""

SHORT = {
    "-tp": "--tensor-parallel-size",
    "-dp": "--data-parallel-size",
    "-pp": "--pipeline-parallel-size",
    "-dcp": "--decode-context-parallel-size",
    "-dpn": "--data-parallel-rank",
    "-dpl": "--data-parallel-size-local",
    "-ep": "--enable-expert-parallel",
    "-q": "--quantization",
    "-sc": "--speculative-config",
    "-asc": "--api-server-count",
    "-cc": "--compilation-config",
    "-O": "--optimization-level",
    "-n": "--nnodes",
    "-r": "--node-rank",
}

# flag -> (Pool field, kind of value)
FIELDS = {
    "--model": ("model", "text"),
    "--tensor-parallel-size": ("tensor_parallel", "count"),
    "--data-parallel-size": ("replicas", "count"),
    "--gpu-memory-utilization": ("gpu_memory_utilization", "share"),
    "--num-gpu-blocks-override": ("kv_blocks", "count"),
    "--block-size": ("block_size", "count"),
    "--max-num-seqs": ("max_num_seqs", "count"),
    "--max-num-batched-tokens": ("max_num_batched_tokens", "count"),
    "--max-model-len": ("max_model_len", "length"),
    "--watermark": ("watermark", "fraction"),
    "--enable-chunked-prefill": ("chunked_prefill", "switch"),
    "--enable-prefix-caching": ("prefix_caching", "switch"),
    "--scheduler-reserve-full-isl": ("reserve_full_isl", "switch"),
}

# Flags that change how the service behaves and that the simulation does not play, with what to do about it.
UNSUPPORTED = {
    "--pipeline-parallel-size": "stages of a pipeline are not simulated: only tensor parallelism is",
    "--decode-context-parallel-size": "context parallelism is not simulated",
    "--enable-expert-parallel": "experts are not simulated apart: step times must hold them already",
    "--quantization": "step times and weights are those of bf16: expect a faster and roomier engine",
    "--kv-cache-dtype": "KV blocks are counted at the model's own precision: fp8 holds twice as many; set kv_blocks",
    "--dtype": "step times and weights are those of bf16",
    "--kv-cache-memory-bytes": "set kv_blocks to the number of GPU blocks that vLLM logs at start-up",
    "--speculative-config": "speculative decoding is not simulated: answers come faster than predicted",
    "--lora-modules": "adapters are not simulated: neither their memory nor their cost",
    "--enable-lora": "adapters are not simulated: neither their memory nor their cost",
    "--kv-transfer-config": "transfer of KV between servers (disaggregated prefill, offload) is not simulated",
    "--kv-offloading-size": "KV offloading is not simulated: a preempted request is always computed again",
    "--cpu-offload-gb": "weights on the CPU make steps slower than tabulated",
    "--swap-space": "vLLM V1 does not swap, and the simulation does not either",
    "--enforce-eager": "without CUDA graphs each step costs more on the host: raise `overhead`",
    "--scheduling-policy": "give cohorts a `priority` instead: 0 is served first",
    "--max-num-partial-prefills": "concurrent partial prefills are not simulated",
    "--max-long-partial-prefills": "concurrent partial prefills are not simulated",
    "--long-prefill-token-threshold": "a cap on long prefills is not simulated",
    "--max-num-scheduled-tokens": "the budget of a step is max_num_batched_tokens",
    "--max-num-queued-reqs": "set fleet.admission.max_queue; vLLM answers 503 where the simulation answers 429",
    "--max-num-queued-tokens": "queues are bounded by requests, not tokens: set fleet.admission.max_queue",
    "--performance-mode": "`throughput` doubles vLLM's defaults: state max_num_seqs and max_num_batched_tokens",
    "--stream-interval": "every token is streamed by itself",
    "--runner": "only text generation is simulated",
    "--task": "only text generation is simulated",
    "--hf-overrides": "the sizes of the model are those of the catalogue",
    "--config": "options in a file are not read: give them on the command line",
}

# Flags without a value, so that a model that follows one is not taken for its value.
SWITCHES = {
    "--enable-chunked-prefill", "--scheduler-reserve-full-isl", "--enable-prefix-caching", "--enable-expert-parallel",
    "--enable-lora", "--enforce-eager", "--trust-remote-code", "--async-scheduling", "--disable-log-requests",
    "--enable-log-requests", "--disable-log-stats", "--enable-auto-tool-choice", "--disable-custom-all-reduce",
    "--disable-sliding-window", "--disable-cascade-attn", "--enable-sleep-mode", "--disable-uvicorn-access-log",
    "--allow-credentials", "--enable-prompt-tokens-details", "--enable-server-load-tracking", "--headless",
    "--enable-force-include-usage", "--enable-request-id-headers", "--disable-fastapi-docs", "--enable-log-outputs",
    "--calculate-kv-scales", "--data-parallel-hybrid-lb", "--data-parallel-external-lb", "--enable-eplb",
    "--enable-dbo", "--use-tqdm-on-load", "--skip-tokenizer-init", "--enable-logging-iteration-details",
    "--enable-mfu-metrics", "--disable-hybrid-kv-cache-manager", "--enable-mm-embeds", "--enable-prompt-embeds",
}  # fmt: skip

# Flags with a value that change nothing that is simulated: names, addresses, logging, loading, output formats.
SILENT = {
    "--host", "--port", "--uds", "--api-key", "--served-model-name", "--ssl-keyfile", "--ssl-certfile",
    "--ssl-ca-certs", "--root-path", "--middleware", "--allowed-origins", "--allowed-methods", "--allowed-headers",
    "--uvicorn-log-level", "--log-config-file", "--max-log-len", "--chat-template", "--response-role",
    "--chat-template-content-format", "--tool-call-parser", "--tool-parser-plugin", "--reasoning-parser",
    "--tokenizer", "--tokenizer-mode", "--tokenizer-revision", "--revision", "--code-revision", "--download-dir",
    "--load-format", "--seed", "--hf-token", "--hf-config-path", "--generation-config", "--config-format",
    "--override-generation-config", "--max-logprobs", "--logprobs-mode", "--distributed-executor-backend",
    "--api-server-count", "--otlp-traces-endpoint", "--collect-detailed-traces", "--prefix-caching-hash-algo",
    "--show-hidden-metrics-for-version", "--kv-events-config", "--data-parallel-address", "--nnodes", "--node-rank",
    "--data-parallel-rpc-port", "--data-parallel-backend", "--data-parallel-rank", "--data-parallel-size-local",
    "--safetensors-load-strategy", "--model-loader-extra-config", "--guided-decoding-backend", "--device",
    "--structured-outputs-config", "--default-chat-template-kwargs", "--master-addr", "--master-port",
    "--limit-mm-per-prompt", "--optimization-level", "--compilation-config", "--additional-config",
    "--shutdown-timeout", "--max-parallel-loading-workers", "--cudagraph-capture-sizes", "--max-cudagraph-capture-size",
}  # fmt: skip

# Flags that take as many values as follow.
MANY = {
    "--served-model-name", "--api-key", "--middleware", "--allowed-origins", "--lora-modules",
    "--collect-detailed-traces", "--cudagraph-capture-sizes",
}  # fmt: skip
