"""How a model continues held-out documents, scored by BLEU and ROUGE-L against how they really go on.

Greedy: the most likely token each time, up to the length of the true continuation. The scores say little about a model
by itself, and something about two models on the same prompts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from dataeng.errors import ConfigError
from trainer.data.rows import MixtureRows
from trainer.device import autocast
from trainer.evaluation.held_out import chosen_rows
from trainer.model.decoder import Decoder

#: Scripts that put no spaces between words (Thai to Khmer, Japanese, Chinese): every character is a word there.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
WORDS = re.compile(f"[{UNSPACED}]|[^\\W_{UNSPACED}]+")


class Words:
    """rouge-score's own words where text is ASCII; of other letters it knows none, and finds nothing in common."""

    def tokenize(self, text: str) -> list[str]:
        """Returns the words in lower case."""
        return WORDS.findall(text.lower())


@dataclass(frozen=True, kw_only=True)
class ContinuationScore:
    """One domain: BLEU (sacrebleu, 0 to 100) and ROUGE-L (F measure, 0 to 100) of ``num_prompts`` continuations."""

    domain: str
    num_prompts: int
    bleu: float
    rouge_l: float


@torch.no_grad()
def continue_greedily(model: Decoder, prompts_bt: torch.Tensor, count: int) -> torch.Tensor:
    """Returns the ``count`` most likely next tokens, one after the other, int64 [B, count], of prompts [B, T]."""
    tokens_bt = prompts_bt
    for _ in range(count):
        with autocast(prompts_bt.device):
            logits_bv = torch.nn.functional.linear(model(tokens_bt)[:, -1], model.output_weight)
        tokens_bt = torch.cat([tokens_bt, logits_bv.float().argmax(-1, keepdim=True)], 1)
    return tokens_bt[:, prompts_bt.shape[1] :]


def score_continuations(
    model: Decoder, rows: MixtureRows, tokenizer: Path, num_prompts: int, device: torch.device
) -> list[ContinuationScore]:
    """Returns the scores of every domain.

    Prompts are the first half of rows that hold a single document, at most ``num_prompts`` a domain, spread evenly;
    the other half is the reference. Domains without such a row are left out. Raises `ConfigError` without the packages.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
        from sacrebleu import corpus_bleu
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise ConfigError(f"scoring continuations needs '{error.name}': pip install 'dataeng[evaluate]'.") from error
    decode = Tokenizer.from_file(str(tokenizer)).decode
    rouge = RougeScorer(["rougeL"], tokenizer=Words())
    scores = []
    for domain, name in enumerate(rows.names):
        found = _whole_rows(rows, domain, num_prompts)
        if not len(found):
            continue
        half = found.shape[1] // 2
        continued = continue_greedily(model, torch.from_numpy(found[:, :half]).to(device).long(), found.shape[1] - half)
        written = [decode(tokens) for tokens in continued.tolist()]
        true = [decode(tokens) for tokens in found[:, half:].tolist()]
        overlaps = [rouge.score(a, b)["rougeL"].fmeasure for a, b in zip(true, written, strict=True)]
        scores.append(
            ContinuationScore(
                domain=name,
                num_prompts=len(found),
                bleu=float(corpus_bleu(written, [true]).score),
                rouge_l=100 * float(np.mean(overlaps)),
            )
        )
    return scores


def _whole_rows(rows: MixtureRows, domain: int, count: int) -> npt.NDArray[np.int32]:
    """Returns rows [n, L] of one document each, without padding, n at most ``count``; not all rows are tried."""
    tried = chosen_rows(rows.num_rows[domain], 1, 8 * count)
    batch = rows.batch(np.full(len(tried), domain, np.int64), tried)
    whole = (batch.documents == batch.documents[:, :1]).all(1)
    return np.asarray(batch.tokens[whole][:count, :-1])
