"""Reviewing a finished run: what is worth a look, what people said of it, and what follows from that.

``run_rows`` (a finished run, read once) → ``index`` (the rows for review, in a file that can be made again) → ``app`` and
``server`` (the page) → ``store`` (verdicts, each durable before it is confirmed) → ``estimate`` (the true accuracy),
``exchange`` (files for other tools) and ``corrections`` (what the trainer takes).
"""
