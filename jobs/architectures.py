"""Write the table of architectures, ``batchscore/model/ARCHITECTURES.md``, from what the tests prove of each.

python jobs/architectures.py            # writes the page
python jobs/architectures.py --check    # exits 1 if it is not current
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "batchscore" / "model" / "ARCHITECTURES.md"
HEAD = """# Architectures

What `tests/kinds.py` lists and `tests/test_probing.py` proves, written by `python jobs/architectures.py`: tiny models with
random weights, whose probabilities differ by at most 1e-5 from those of plain `transformers`, one text at a time, in
float32; or that are refused before anything is scored. Others are probed in the same way when they are loaded: what is not
listed here is right, or refused, too.

*Computed by*: what scores a bundle, or a plain folder, where its canaries or reference answers agree; our own code takes
only options and tensors that it knows. *In transformers*: the padding mode that probing finds (with a `pad_token_id` in
`config.json`), and whether a fresh copy of the model is needed for each micro-batch. *Trains*: what `batchscore-train` does
with such a base; a dot: not tried.

| `model_type` | class (`…ForSequenceClassification`) | computed by | in transformers | trains |
| --- | --- | --- | --- | --- |
"""
PADDINGS = {
    "right": "padded on the right",
    "left": "padded on the left",
    "none": "equal lengths together",
    "single": "one text at a time",
}


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT / "tests"))
    from kinds import KINDS, REFUSED, TRAINS
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    from batchscore.model.backends.architectures import architecture_of

    classes: Any = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    lines = []
    for kind in sorted({*KINDS, *REFUSED}):
        name = str(classes[kind]).removesuffix("ForSequenceClassification")
        if kind in REFUSED:
            plain, bundle = f"refused: {REFUSED[kind][2]}", "refused"
        else:
            _, backend, padding = KINDS[kind]
            plain = PADDINGS[padding] + (", a fresh copy each" if backend == "fresh" else "")
            bundle = "our own code" if architecture_of(kind).classifier else "transformers"
        lines.append(f"| `{kind}` | {name} | {bundle} | {plain} | {TRAINS.get(kind, '·')} |\n")
    return f"{HEAD}{''.join(lines)}"


def main() -> int:
    """Write or check the page; the exit code."""
    if "--check" in sys.argv[1:]:
        return int(PAGE.read_text(encoding="utf-8") != page())
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE.relative_to(ROOT)}: written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
