"""From a checkpoint to transformers and PEFT, and from there into the next run."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from dataeng.errors import ConfigError, DataengError, FormatError
from dataeng.formats.atomic import sha256_file
from dataeng.formats.mixture import load_mixture
from tests.trainer.conftest import EOS, TOKENIZER
from trainer.cli import app
from trainer.config import TrainConfig
from trainer.huggingface.config import read_model_config
from trainer.huggingface.export import export_checkpoint
from trainer.huggingface.tokenizer_files import check_same_tokenizer
from trainer.huggingface.weights import load_weights
from trainer.initial import initial_model
from trainer.loop import train
from trainer.model.attention import Documents
from trainer.model.decoder import Decoder
from trainer.recovery.checkpoint import load_model_tensors
from trainer.watching.progress import Watcher

MakeConfig = Callable[..., TrainConfig]
TOKENS = torch.randint(256, (2, 24), generator=torch.Generator().manual_seed(1))


class Silent(Watcher):
    """Watches a run without a word."""

    def begin(self, first_step: int, num_steps: int) -> None: ...
    def step(self, record: Any) -> None: ...
    def note(self, text: str) -> None: ...


def byte_tokenizer() -> Tokenizer:
    """One token a byte, in order of the bytes, and one that ends documents."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    characters = [chr(byte if byte in printable else next(others)) for byte in range(256)]  # GPT-2's table
    tokenizer = Tokenizer(models.BPE({character: byte for byte, character in enumerate(characters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|end|>"])
    assert tokenizer.token_to_id("<|end|>") == EOS
    return tokenizer


@pytest.fixture
def tokenizer_path(mixture: Path, tmp_path: Path) -> Path:
    """Gives the packs of `mixture` a real tokenizer."""
    path = tmp_path / "run" / "packs" / "tokenizer.json"
    byte_tokenizer().save(str(path))
    sha256 = sha256_file(path)
    for described in [mixture, *path.parent.glob("*/pack.json")]:
        described.write_text(described.read_text().replace(TOKENIZER, sha256))
    return path


@pytest.fixture
def run(make_config: MakeConfig, tokenizer_path: Path) -> Callable[..., TrainConfig]:
    """Returns ``run(**options)``, which trains a few steps and returns what was run."""

    def do(**options: Any) -> TrainConfig:
        config = make_config(**{"steps": 3, "checkpoint_every": 1, "learning_rate": 3e-3, **options})
        train(config, load_mixture(config.mixture), Silent())
        return config

    return do


def newest_model(config: TrainConfig) -> Decoder:
    """The model of a run's last checkpoint."""
    model = initial_model(config)
    newest = max((config.out / "checkpoints").glob("step-*"))
    load_model_tensors(model, safetensors.torch.load_file(newest / "model.safetensors"))
    return model


@torch.no_grad()
def assert_same_logits(theirs: Any, ours: Decoder) -> None:
    torch.testing.assert_close(theirs(TOKENS).logits, ours.logits(TOKENS), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True, "tied_embeddings": False, "rope_scaling": "yarn:2"}])
def test_transformers_takes_over_model_and_tokenizer(
    run: Callable[..., TrainConfig], tmp_path: Path, options: dict[str, Any]
) -> None:
    config = run(**options)
    done = export_checkpoint(config.out, tmp_path / "export")
    assert (done.step, done.num_parameters) == (3, Decoder(config.model).num_parameters())
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "export")
    assert_same_logits(model, newest_model(config))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "export")
    text = "Grüße, 世界!\n\n  def f(x): return x\t# naïve"
    assert tokenizer(text)["input_ids"] == list(text.encode()) == byte_tokenizer().encode(text).ids
    assert tokenizer.decode(list(text.encode())) == text
    assert (tokenizer.eos_token, tokenizer.eos_token_id, model.generation_config.eos_token_id) == ("<|end|>", EOS, EOS)
    assert (tokenizer.model_max_length, len(tokenizer)) == (64, 257)
    generated = model.generate(TOKENS[:1, :4], max_new_tokens=3, do_sample=False, pad_token_id=EOS)
    with torch.no_grad():
        assert generated[0, 4] == newest_model(config).logits(TOKENS[:1, :4])[0, -1].argmax()


def test_tokens_see_their_own_document_only_unless_told(
    run: Callable[..., TrainConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop asks for masks with the loader's documents; they are replaced by short ones, which must matter."""
    asked: list[torch.Tensor] = []

    def halves(found: Documents, device: torch.device) -> Documents:
        asked.append(found.index_bt)
        return Documents((torch.arange(64) // 32).expand(len(found.index_bt), -1))

    monkeypatch.setattr(Documents, "to", halves)
    masked, whole = (run(steps=1, document_mask=mask, out=tmp_path / str(mask)) for mask in (True, False))
    assert [index.shape for index in asked] == [(4, 64)]
    states = [newest_model(config).state_dict() for config in (masked, whole)]
    assert any(not torch.equal(value, states[1][name]) for name, value in states[0].items())
    with pytest.raises(ConfigError, match="--document-mask True → False"):
        run(steps=1, document_mask=False, out=tmp_path / "True")


def test_every_checkpoint_can_be_exported_in_bfloat16_and_several_files(
    run: Callable[..., TrainConfig], tmp_path: Path
) -> None:
    config = run()
    first, *_ = sorted((config.out / "checkpoints").glob("step-*"))
    done = export_checkpoint(first, tmp_path / "export", dtype="bfloat16", max_file_bytes=500_000)
    assert done.step == int(first.name.removeprefix("step-"))
    assert len(list((tmp_path / "export").glob("model-*.safetensors"))) > 2
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "export").dtype == torch.bfloat16


def test_pretraining_goes_on_from_an_export(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = run()
    export_checkpoint(config.out, tmp_path / "export")
    # what a person may have done meanwhile: transformers writes the same model and tokenizer in other bytes
    AutoModelForCausalLM.from_pretrained(tmp_path / "export").save_pretrained(tmp_path / "saved")
    AutoTokenizer.from_pretrained(tmp_path / "export").save_pretrained(tmp_path / "saved")
    assert sha256_file(tmp_path / "saved/tokenizer.json") != sha256_file(tmp_path / "export/tokenizer.json")
    second = run(init_from=tmp_path / "saved", out=tmp_path / "second", preset="small", sequence_length=32)
    assert second.model == config.model
    state = newest_model(config).state_dict()
    assert all(torch.equal(value, state[name]) for name, value in initial_model(second).state_dict().items())
    assert not torch.equal(newest_model(second).norm.weight, state["norm.weight"])
    # another model is another run
    weights = tmp_path / "saved" / "model.safetensors"
    values = safetensors.torch.load_file(weights)
    safetensors.torch.save_file({name: value + 1 for name, value in values.items()}, weights, {"format": "pt"})
    with pytest.raises(ConfigError, match="the model of --init-from"):
        run(init_from=tmp_path / "saved", out=tmp_path / "second", preset="small", sequence_length=32, steps=4)


@pytest.mark.parametrize("qkv_only", [False, True])
def test_lora_trains_adapters_that_peft_loads_and_that_can_be_merged(
    run: Callable[..., TrainConfig], tmp_path: Path, qkv_only: bool
) -> None:
    from peft import PeftModel

    base = tmp_path / "base"
    export_checkpoint(run().out, base)
    targets = {"lora_targets": "q_proj, v_proj"} if qkv_only else {}
    config = run(init_from=base, out=tmp_path / "tuned", lora=4, learning_rate=0.05, **targets)
    model = newest_model(config)
    saved = safetensors.torch.load_file(max((config.out / "checkpoints").glob("step-*")) / "model.safetensors")
    assert all(".lora_" in name for name in saved) and len(saved) == 4 * 2 * (2 if qkv_only else 7)
    plain = Decoder(config.model)
    load_weights(plain, base)
    with torch.no_grad():
        assert not torch.allclose(plain.logits(TOKENS), model.logits(TOKENS), rtol=1e-2, atol=1e-2)
    export_checkpoint(config.out, tmp_path / "merged")
    assert_same_logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), model)
    done = export_checkpoint(config.out, tmp_path / "adapter", adapter=True)
    assert done.num_parameters == sum(value.numel() for value in saved.values())
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    assert_same_logits(tuned, model)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == str(base)
    assert_same_logits(tuned.merge_and_unload(), model)


def test_a_lora_run_resumes_bit_for_bit(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    base = tmp_path / "base"
    export_checkpoint(run().out, base)
    whole = run(init_from=base, out=tmp_path / "whole", lora=2, keep_checkpoints=3)
    resumed = replace(whole, resume_from=2)
    expected = newest_model(whole).state_dict()
    train(resumed, load_mixture(resumed.mixture), Silent())
    assert all(torch.equal(value, expected[name]) for name, value in newest_model(resumed).state_dict().items())


def test_what_does_not_fit_the_model_to_start_from(
    run: Callable[..., TrainConfig], make_config: MakeConfig, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    export_checkpoint(run().out, base)

    def refused(message: str, **options: Any) -> None:
        with pytest.raises(DataengError, match=message):
            initial_model(make_config(**{"init_from": base, **options}))

    refused("is longer than the 64 positions", sequence_length=65)
    extended = make_config(init_from=base, sequence_length=128, rope_scaling="yarn:2").model
    assert (extended.max_positions, extended.rope_scaling.original_max_positions) == (128, 64)
    assert make_config(init_from=base, sequence_length=128, rope_scaling="dynamic:2").model.max_positions == 64
    refused("--qk-norm and --tied-embeddings are as in the model", qk_norm=True)
    refused("there is no matrix 'k_prj'; did you mean 'k_proj'", lora=2, lora_targets="q_proj,k_prj")
    refused("--lora 0, --lora-alpha 0", lora=0)
    refused("say with --init-from whose", lora=2, init_from=None)
    refused("cannot read config.json", init_from=tmp_path)
    tokenizer = (base / "tokenizer.json").read_text()
    swapped = json.loads(tokenizer)
    swapped["model"]["vocab"].update({"A": 66, "B": 65})
    (base / "tokenizer.json").write_text(json.dumps(swapped))
    refused("different: the token 'A' has the id 66 there, 65 here")
    (base / "tokenizer.json").unlink()
    refused(r"has no tokenizer.json, so nothing shows")
    (base / "tokenizer.json").write_text(tokenizer)
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**values, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}))
    refused("--rope-scaling yarn:2 would replace the 'linear' scaling by 2 that", rope_scaling="yarn:2")
    (base / "config.json").write_text(json.dumps({**values, "vocab_size": 200}))
    refused("knows 200 tokens, the packs have a vocabulary of 257")
    (base / "config.json").write_text(json.dumps({**values, "intermediate_size": 9}))
    refused(r"mlp\.gate_proj\.weight is \(384, 128\); config\.json describes \(9, 128\)")
    (base / "config.json").write_text(json.dumps({**values, "model_type": "mamba"}))
    refused("a 'mamba' model")


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "NFC"}, "their normalizer differs"),
        ("pre_tokenizer", None, "their pre_tokenizer differs"),
        ("merges", [["A", "B"]], "their merges differ"),
        ("ignore_merges", True, "their models' ignore_merges differs"),
        ("byte_fallback", False, None),  # as is none at all
        ("decoder", None, None),
        ("post_processor", None, None),
    ],
)
def test_tokenizers_are_the_same_if_they_give_the_same_ids(
    mixture: Path, tokenizer_path: Path, tmp_path: Path, part: str, value: Any, message: str | None
) -> None:
    values = json.loads(tokenizer_path.read_text())
    (values["model"] if part in ("merges", "ignore_merges", "byte_fallback") else values)[part] = value
    (tmp_path / "tokenizer.json").write_text(json.dumps(values, indent=1))
    if message is None:
        check_same_tokenizer(tmp_path, load_mixture(mixture), mixture)
    else:
        with pytest.raises(ConfigError, match=message):
            check_same_tokenizer(tmp_path, load_mixture(mixture), mixture)


def test_damaged_and_missing_checkpoints(run: Callable[..., TrainConfig], mixture: Path, tmp_path: Path) -> None:
    config = run()
    to = tmp_path / "export"
    newest = max((config.out / "checkpoints").glob("step-*"))

    def refused(message: str, error: type[Exception] = FormatError, path: Path = newest, **options: Any) -> None:
        with pytest.raises(error, match=message):
            export_checkpoint(path, to, **options)
        assert not to.exists()

    refused("--dtype bf16 is unknown", ConfigError, dtype="bf16")
    refused("its run was not started with --lora", ConfigError, adapter=True)
    refused("there is no checkpoint in", ConfigError, path=tmp_path)
    weights = newest / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1])
    refused(r"model\.safetensors is missing or was altered")
    weights.write_bytes(content)
    state = (newest / "state.json").read_text()
    (newest / "state.json").write_text(state[:-9])
    refused("cannot read checkpoint")
    (newest / "state.json").write_text(state)
    tokenizer = tmp_path / "run/packs/tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    refused("is not the packs' tokenizer any more", ConfigError)
    tokenizer.unlink()
    refused("the tokenizer of the packs, is missing", ConfigError)
    mixture.unlink()
    refused("found through the mixture that the run was of", ConfigError)
    to.mkdir()
    (to / "notes.txt").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export_checkpoint(newest, to)


def test_the_command_exports_and_says_what(run: Callable[..., TrainConfig], tmp_path: Path) -> None:
    config = run()
    arguments = ["export", str(config.out), "--to", str(tmp_path / "x"), "--dtype", "float16"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert f"weights of step 3 to {tmp_path / 'x'}" in result.output
    assert read_model_config(tmp_path / "x") == config.model
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: --to ") and "is not empty" in result.stderr
    named = CliRunner().invoke(app, ["train", "--mixture", str(tmp_path / "none.json")])
    short = CliRunner().invoke(app, ["--mixture", str(tmp_path / "none.json")])
    assert named.stderr == short.stderr != ""
