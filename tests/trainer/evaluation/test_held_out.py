"""Held-out scores against plain cross-entropy, changes that are real, and continuations that are right."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from tokenizers import Tokenizer, models
from typer.testing import CliRunner

from dataeng.errors import ConfigError
from dataeng.formats.mixture import load_mixture
from trainer.cli import app
from trainer.config import TrainConfig
from trainer.evaluation.continuations import Words, continue_greedily, score_continuations
from trainer.evaluation.held_out import chosen_rows, compare, held_out_rows, load_model, score
from trainer.huggingface.export import export_checkpoint
from trainer.loop import train
from trainer.model.decoder import Decoder
from trainer.model.presets import ModelConfig
from trainer.watching.progress import PlainWatcher

MakeConfig = Callable[..., TrainConfig]
CPU = torch.device("cpu")
TINY = ModelConfig(vocab_size=257, dim=16, num_layers=1, num_heads=2, num_kv_heads=1, hidden_dim=32, max_positions=64)


def tiny(seed: int) -> Decoder:
    model = Decoder(TINY)
    model.initialize(seed)
    return model


@pytest.fixture(scope="module")
def silent() -> PlainWatcher:
    return PlainWatcher(Console(quiet=True))


def test_scores_are_the_cross_entropy_of_documents_by_themselves(mixture: Path) -> None:
    manifest = load_mixture(mixture)
    rows = held_out_rows(manifest, mixture, 64)
    model = tiny(0)
    scores = score(model, rows, 64 * 6, CPU)
    for number, found in enumerate(scores):
        total = count = 0.0
        for row in chosen_rows(rows.num_rows[number], 64, 64 * 6).tolist():
            batch = rows.batch(np.array([number]), np.array([row]))
            tokens, documents = torch.from_numpy(batch.tokens[0]).long(), batch.documents[0]
            for document in np.unique(documents):
                piece = tokens[torch.from_numpy(documents == document)]
                counted = torch.from_numpy(batch.labels[0].astype(bool))[torch.from_numpy(documents[1:] == document)]
                if len(piece) < 2 or not counted.any():
                    continue
                losses = torch.nn.functional.cross_entropy(
                    model.logits(piece[None, :-1])[0], piece[1:], reduction="none"
                )
                total, count = total + float(losses.detach().sum()), count + len(losses)
        assert found.loss == pytest.approx(total / count, rel=1e-4)
        assert found.row_tokens.sum() == count
        assert found.perplexity == pytest.approx(math.exp(found.loss))
        # One token a byte, and no byte for the token that ends a document.
        assert found.bits_per_byte == pytest.approx(found.loss / math.log(2), rel=0.05)
        assert 0 < found.standard_error < found.loss


def test_rows_are_spread_evenly() -> None:
    assert chosen_rows(100, 10, 30).tolist() == [0, 49, 99]
    assert chosen_rows(3, 10, 10_000).tolist() == [0, 1, 2]
    assert chosen_rows(5, 10, 1).tolist() == [0]


def test_a_model_does_not_differ_from_itself_and_training_is_seen(
    make_config: MakeConfig, mixture: Path, silent: PlainWatcher
) -> None:
    manifest = load_mixture(mixture)
    config = make_config(steps=30, checkpoint_every=15)
    train(config, manifest, silent)
    rows = held_out_rows(manifest, mixture, 64)
    checkpoints = [config.out / "checkpoints" / f"step-{step:08d}" for step in (15, 30)]
    first, second = (score(load_model(c, manifest, mixture, CPU), rows, 640, CPU) for c in checkpoints)
    assert {change.verdict for change in compare(first, first)} == {"same"}
    assert {change.verdict for change in compare(first, second)} == {"learned"}
    assert {change.verdict for change in compare(second, first)} == {"forgot"}
    for change in compare(first, second):
        # Rows are paired: the change is known better than either loss.
        assert change.standard_error < min(change.before.standard_error, change.after.standard_error)


def test_the_command_shows_losses_changes_and_a_verdict(
    make_config: MakeConfig, mixture: Path, silent: PlainWatcher
) -> None:
    config = make_config(steps=20, checkpoint_every=10)
    train(config, load_mixture(mixture), silent)
    before = config.out / "checkpoints/step-00000010"
    options = ["--mixture", str(mixture), "--tokens", "640", "--sequence-length", "64", "--device", "cpu"]
    called = CliRunner().invoke(app, ["evaluate", str(config.out), "--before", str(before), *options])
    assert called.exit_code == 0, called.output
    assert "learned: code, prose, tables; forgotten: nothing" in called.output
    assert "bits/byte" in called.output and "perplexity" in called.output
    # The model was made for 64 positions: by default it is not asked about more.
    without = [option for option in options if option not in ("--sequence-length", "64")]
    assert (
        CliRunner().invoke(app, ["evaluate", str(config.out), "--before", str(before), *without]).output
        == called.output
    )


def test_a_model_of_another_tokenizer_is_refused(
    make_config: MakeConfig, mixture: Path, silent: PlainWatcher, tmp_path: Path
) -> None:
    manifest = load_mixture(mixture)
    config = make_config(steps=2)
    train(config, manifest, silent)
    other = manifest.model_copy(update={"tokenizer_sha256": "c" * 64})
    with pytest.raises(ConfigError, match=f"the packs of .* were made with {'c' * 64}"):
        load_model(config.out, other, mixture, CPU)
    with pytest.raises(ConfigError, match="there is no checkpoint in"):
        load_model(tmp_path / "none", manifest, mixture, CPU)
    with pytest.raises(ConfigError):
        export_checkpoint(tmp_path / "none", tmp_path / "out")


def test_the_most_likely_tokens_follow() -> None:
    """A model that copies: tied embeddings without layers make each token most like itself."""
    model = tiny(0)
    with torch.no_grad():
        for layer in model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.embed_tokens.weight.copy_(torch.eye(257)[:, :16] + 0.01)
        model.embed_tokens.weight[:16] *= 10
    prompts = torch.tensor([[1, 2, 3], [4, 5, 6]])
    assert continue_greedily(model, prompts, 4).tolist() == [[3] * 4, [6] * 4]


def test_words_of_any_script_are_words() -> None:
    """rouge-score's own are of a to z and digits, which it finds the same; of others it finds none at all."""
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    text = "It's a DOG_house, No. 42-b\n x=y**2;  don't\tstop -- e.g. 3.14"
    assert Words().tokenize(text) == DefaultTokenizer().tokenize(text)
    assert Words().tokenize("Привет, мир! naïve 数据集 ได้ ES_1") == [
        "привет", "мир", "naïve", "数", "据", "集", "ไ", "ด", "้", "es", "1"
    ]  # fmt: skip
    scorer = RougeScorer(["rougeL"], tokenizer=Words())
    assert scorer.score("один два три", "один три два")["rougeL"].fmeasure == pytest.approx(2 / 3)


def test_continuations_that_are_right_have_full_marks(
    mixture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = held_out_rows(load_mixture(mixture), mixture, 32)
    words = Tokenizer(models.WordLevel({f"w{i}": i for i in range(257)}, unk_token="w0"))
    words.save(str(tmp_path / "tokenizer.json"))
    found = score_continuations(tiny(0), rows, tmp_path / "tokenizer.json", 4, CPU)
    assert [s.domain for s in found] == ["code", "prose", "tables"]
    assert all(0 <= s.bleu < 20 and 0 <= s.rouge_l < 40 and 1 <= s.num_prompts <= 4 for s in found)

    def truth(model: Decoder, prompts: torch.Tensor, count: int) -> torch.Tensor:
        for row in range(rows.num_rows[0]):
            tokens = torch.from_numpy(rows.batch(np.array([0]), np.array([row])).tokens[:, :-1]).long()
            if torch.equal(tokens[0, : prompts.shape[1]], prompts[0]):
                return tokens[:, prompts.shape[1] :]
        return torch.zeros(len(prompts), count, dtype=torch.long)

    monkeypatch.setattr("trainer.evaluation.continuations.continue_greedily", truth)
    monkeypatch.setattr(rows, "names", ["code"])
    (right,) = score_continuations(tiny(0), rows, tmp_path / "tokenizer.json", 1, CPU)
    assert right.num_prompts == 1 and right.bleu == pytest.approx(100) and right.rouge_l == pytest.approx(100)
