"""Other tools' per-request files as measured runs: what each says of a request, and how that becomes a run folder.

Texts of prompts and answers are never kept.
"""
