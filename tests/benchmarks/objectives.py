"""What objectives cost beside encoding the same texts without one, on one thread.

    python tests/benchmarks/objectives.py [--data DIR] [--megabytes 2]

DIR has ``domains/code.jsonl.gz`` and ``benchmarks/gsm8k_test.jsonl.gz``; without it, the sample's code and questions
are repeated. The tokenizer is trained on the code (byte-level BPE, 8,192 tokens). Times are the processor's, medians of
three. The last line has ``key=value`` figures: seconds of an objective over seconds of plain encoding, and tokens per
second of what it does to tokens once they are there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

SAMPLE = Path(__file__).parents[2] / "dataeng/sample"
SPECIAL = [
    "<|endoftext|>", "[MASK]", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|im_start|>", "<|im_end|>",
    *(f"<extra_id_{i}>" for i in range(100)),
]  # fmt: skip


def records(path: Path) -> list[dict[str, Any]]:
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in content.decode().splitlines()]


def repeated(items: list[Any], size: Callable[[Any], int], num_bytes: float) -> list[Any]:
    """Returns items, from the start again if need be, up to a number of bytes."""
    found, total = [], 0.0
    while total < num_bytes:
        for item in items:
            found.append(item)
            total += size(item)
            if total >= num_bytes:
                break
    return found


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return statistics.median(taken)


def train(texts: list[str], folder: Path) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=8192, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder / "tokenizer.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--megabytes", type=float, default=2)
    arguments = parser.parse_args()

    import numpy as np
    import polars as pl

    from dataeng.kernels.noising import corrupt_spans, mask_tokens
    from dataeng.stages.ingest.conversations import Conversation
    from dataeng.stages.tokens.apply_chat_template import ApplyChatTemplate
    from dataeng.stages.tokens.objectives.chat import Chat
    from dataeng.stages.tokens.objectives.draws import document_keys
    from dataeng.stages.tokens.objectives.ends import Ends
    from dataeng.stages.tokens.objectives.fim import Fim, fim_of_tokens
    from dataeng.stages.tokens.objectives.masked_lm import MaskedLm
    from dataeng.stages.tokens.objectives.objective import Objective, PlainText
    from dataeng.stages.tokens.objectives.span_corruption import SpanCorruption
    from dataeng.stages.tokens.pack_tokenizer import load_tokenizer

    data = arguments.data
    code = data / "domains/code.jsonl.gz" if data else SAMPLE / "code/code.jsonl.gz"
    questions = data / "benchmarks/gsm8k_test.jsonl.gz" if data else SAMPLE / "qa/questions.jsonl"
    given = [record["text"] for record in records(code)]
    num_bytes = arguments.megabytes * 1e6
    texts = repeated(given, lambda text: len(text.encode()), num_bytes)
    rows = pl.DataFrame({"id": [str(i) for i in range(len(texts))], "text": texts})
    ends = Ends(None, 0)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = load_tokenizer(train(given, Path(folder)))

        def measured(name: str, objective: Objective, frame: pl.DataFrame, plain: float | None) -> float:
            objective.prepare(tokenizer, ends)
            taken = seconds(lambda: objective.encode(frame, tokenizer, ends))
            size = sum(len(text.encode()) for text in frame.get_column("text")) / 1e6
            ratio = f"{taken / plain:6.2f}" if plain else "     –"
            print(f"{name:<24}{size / taken:10.1f} MB/s {ratio} of plain encoding's time")
            if plain:
                figures[f"{name}_time_ratio"] = round(taken / plain, 2)
            return taken

        plain = measured("plain_text", PlainText(), rows, None)
        measured("fim_character", Fim(), rows, plain)
        measured("fim_token", Fim(level="token"), rows, plain)
        measured("span_corruption", SpanCorruption(), rows, plain)
        measured("masked_lm", MaskedLm(), rows, plain)

        reader = Conversation(user="question", assistant="answer")
        turns = [reader.turns_of(r) for r in repeated(records(questions), lambda r: len(str(r)), num_bytes / 4)]
        chats = pl.DataFrame(turns, schema=["text", "turns"], orient="row").with_row_index("id")
        chats = chats.with_columns(pl.col("id").cast(pl.String))
        template = ApplyChatTemplate(tokenizer=tokenizer.path, template="chatml")
        template.setup({})
        rendered = template.apply(chats)
        plain = measured("plain_text (chats)", PlainText(), chats, None)
        measured("chat", Chat(), rendered, plain)
        taken = seconds(lambda: template.apply(chats))
        figures["apply_chat_template_time_ratio"] = round(taken / plain, 2)
        print(f"{'apply_chat_template':<24}{'':>15} {taken / plain:6.2f} of plain encoding's time")

        encoded = tokenizer.encode(rows.get_column("text"))
        tokens, keys = encoded.tokens.astype(np.int32), document_keys(rows.get_column("id"), 0, "benchmark")
        sentinels = np.arange(1000, 1100, dtype=np.int32)
        after: dict[str, Callable[[], Any]] = {
            "fim": lambda: fim_of_tokens(encoded, keys, 0.5, 0.5, (2, 3, 4)),
            "span_corruption": lambda: corrupt_spans(
                tokens, encoded.lengths, keys, max_tokens=512, density=0.15, mean_span=3.0, sentinels=sentinels,
                before=None, between=None, after=0,
            ),
            "masked_lm": lambda: mask_tokens(
                tokens, encoded.lengths, keys, max_tokens=510, rate=0.15, mask_share=0.8, random_share=0.1, mask_id=1,
                ordinary=sentinels, before=None, after=0,
            ),
        }  # fmt: skip
        for name, work in after.items():
            rate = len(tokens) / seconds(work)
            figures[f"{name}_tokens_per_second"] = round(rate)
            print(f"{name + ', tokens alone':<32}{rate / 1e6:8.0f} million tokens/s")
    print(" ".join(f"{key}={value}" for key, value in figures.items()))


if __name__ == "__main__":
    main()
