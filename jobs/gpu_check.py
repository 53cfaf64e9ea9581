"""Check batchscore on a CUDA GPU and measure it there, in at most a few minutes. Usually called by ``jobs/gpu_check.sh``.

    python jobs/gpu_check.py --output FOLDER                          # a GPU, everything
    python jobs/gpu_check.py --output FOLDER --steps models,memory    # some steps; all need models once
    python jobs/gpu_check.py --output FOLDER --dry                    # tiny models on the CPU: do the steps run at all?

What the steps are, and what they do, is in ``gpu_steps.py``. Each runs in a process of its own and is stopped after its time;
one that fails or is stopped leaves the others alone. ``FOLDER/gpu_check.json`` has everything, a table is printed; the exit code is
1 if a check failed or a step broke. Goals that are missed fail nothing: they are those of an H100.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

_SPARE = 5.0
"""Seconds kept for the table."""
_CONTEXT = multiprocessing.get_context("forkserver")


def _own_group(run: Callable[..., None], log: str, arguments: Sequence[Any]) -> None:
    """In a step's process: become a process group, so that all that it starts can be ended with it; say everything to a log."""
    os.setsid()
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    try:
        run(*arguments)
    except BaseException:  # noqa: BLE001 - whatever it is, it goes to the log
        with os.fdopen(2, "w", closefd=False) as stderr:
            traceback.print_exc(file=stderr)
        sys.exit(1)


def boxed(run: Callable[..., None], arguments: Sequence[Any], seconds: float, log: Path) -> str:
    """Run a function in a process of its own; how it ended: ``done``, ``stopped`` or ``broke: …`` with its last words."""
    process = _CONTEXT.Process(target=_own_group, args=(run, str(log), arguments))
    process.start()
    process.join(seconds)
    is_late = process.exitcode is None
    try:
        os.killpg(process.pid or 0, signal.SIGKILL)  # what it left behind, too
    except ProcessLookupError:
        process.kill()
    process.join()
    if is_late:
        return f"stopped after {seconds:.0f} s"
    if process.exitcode == 0:
        return "done"
    said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.exists() else []
    return f"broke: {said[-1] if said else f'exit {process.exitcode}'}"


def run_steps(steps: Sequence[str], given: argparse.Namespace, deadline: float) -> list[dict[str, Any]]:
    """Run the steps, each within its time and all before ``deadline`` (of ``time.monotonic``); all that they noted."""
    from gpu_steps import STEPS, run_step

    found: list[dict[str, Any]] = []
    for step in steps:
        notes, log = given.output / "steps" / f"{step}.json", given.output / "steps" / f"{step}.log"
        for path in (notes, log):
            path.unlink(missing_ok=True)
        left = min(STEPS[step].seconds * (3 if given.dry else 1), deadline - time.monotonic())
        print(f"{step} ...", file=sys.stderr, flush=True)
        started = time.monotonic()
        ended = "not begun: no time left"
        if left > 1:
            ended = boxed(run_step, (step, given.output, given.dry, given.data), left, log)
        if notes.exists():
            found += json.loads(notes.read_bytes())
        seconds = round(time.monotonic() - started, 1)
        found.append(
            {"kind": "step", "step": step, "what": f"{seconds} s", "value": ended, "ok": ended == "done"}
        )
    return found


def failed(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Checks beyond their limits, and steps that did not come to their end."""
    return [each for each in found if each["kind"] in ("check", "step") and not each["ok"]]


def table(found: Sequence[dict[str, Any]]) -> str:
    """Everything as Markdown."""
    lines = ["| step | what | value | limit | |", "| --- | --- | ---: | ---: | --- |"]
    for each in found:
        value = f"{each['value']:.3g}" if each["kind"] == "check" else str(each["value"])
        lines.append(
            f"| {each['step']} | {each['what']} | {value} | {each.get('limit', '')} | {_verdict(each)} |"
        )
    return "\n".join(lines)


def _verdict(each: dict[str, Any]) -> str:
    if each.get("ok") is None:
        return "skipped" if each["kind"] == "skipped" else ""
    if each["kind"] == "goal":
        return "reached" if each["ok"] else "missed"
    return "ok" if each["ok"] else "FAILED"


def card_of_torch() -> str:
    """The first GPU's name, as torch has it, and its memory; empty if there is none. CUDA starts in a process of its own."""
    look = (
        "import torch\n"
        "if torch.cuda.is_available():\n"
        "    it = torch.cuda.get_device_properties(0)\n"
        "    print(f'{it.name}, {it.total_memory / 2**30:.1f} GiB')"
    )
    done = subprocess.run([sys.executable, "-c", look], capture_output=True, text=True, check=False)  # noqa: S603
    return done.stdout.strip()


def machine(card: str) -> dict[str, Any]:
    """The card, its driver, and versions; nothing here starts CUDA in this process."""
    import torch
    import transformers

    import batchscore

    driver = None
    if program := shutil.which("nvidia-smi"):
        asked = [program, "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
        driver = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    return {
        "card": card,
        "driver": driver,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "batchscore": batchscore.__version__,
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def main() -> int:
    """Parse, run the steps, write and print what they found."""
    from gpu_steps import STEPS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=os.environ.get("OUT"), help="a folder (default: $OUT)")
    parser.add_argument(
        "--dry", action="store_true", help="tiny models on the CPU; what needs a GPU is skipped"
    )
    parser.add_argument(
        "--data", type=Path, help="Parquet with reviews in a column text (default: made ones)"
    )
    parser.add_argument("--seconds", type=float, default=420, help="for all steps together (default: 420)")
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of: {', '.join(STEPS)}")
    given = parser.parse_args()
    if given.output is None:
        parser.error("--output FOLDER is needed where $OUT is not set")
    given.output = Path(given.output).resolve()
    steps = given.steps.split(",")
    if unknown := set(steps) - set(STEPS):
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    card = "none: a dry run on the CPU" if given.dry else card_of_torch()
    if not card:
        parser.error("this machine or this build of torch has no CUDA GPU; --dry runs what a CPU can")
    deadline = time.monotonic() + given.seconds - _SPARE
    os.environ |= {"BATCHSCORE_CACHE": "off", "HF_HUB_OFFLINE": "1"}
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # a look for GPUs must not start CUDA before a fork
    for name in () if given.dry else ("OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM"):
        os.environ.pop(name, None)  # it would limit what is measured
    _CONTEXT.set_forkserver_preload(["torch", "transformers", "gpu_steps"])
    (given.output / "steps").mkdir(parents=True, exist_ok=True)
    found = run_steps(steps, given, deadline)
    facts = {"machine": machine(card), "dry": given.dry, "found": found}
    path = given.output / "gpu_check.json"
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(", ".join(f"{name} {value}" for name, value in facts["machine"].items()), end="\n\n")
    print(table(found), end="\n\n")
    wrong = failed(found)
    print(f"{path}: {len(wrong)} failed" if wrong else f"{path}: all checks passed")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
