"""The registry, and every objective through the sink: packs that are whole, in every domain its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest
from pydantic import TypeAdapter, ValidationError

from dataeng.engine.outputs import TaskOutputs
from dataeng.errors import ConfigError
from dataeng.formats.pack import Pack
from dataeng.formats.pack_verification import verify_pack
from dataeng.stages.tokens.apply_chat_template import ApplyChatTemplate
from dataeng.stages.tokens.objectives import OBJECTIVES, AnyObjective
from dataeng.stages.tokens.objectives.objective import Objective
from dataeng.stages.tokens.write_packs import WritePacks
from tests.stages.tokens.test_apply_chat_template import message, rows

CONVERSATION = [message("user", "the quick fox?"), message("assistant", "Jumps over <|im_end|> the dog.")]


def test_the_registry_and_the_option_name_the_same_objectives() -> None:
    assert tuple(OBJECTIVES.values()) == get_args(get_args(AnyObjective)[0])
    for kind, cls in OBJECTIVES.items():
        objective = TypeAdapter(AnyObjective).validate_python({"kind": kind})
        assert type(objective) is cls and objective.model_dump()["kind"] == kind
        assert issubclass(cls, Objective) and cls.__doc__
    with pytest.raises(ValidationError, match="'plain_text', 'fim', 'span_corruption', 'masked_lm', 'chat'"):
        TypeAdapter(AnyObjective).validate_python({"kind": "t5"})


@pytest.mark.parametrize("eos", ["append", "none"])
@pytest.mark.parametrize("bos_token", [None, "<s>"])
def test_every_objective_makes_whole_packs(
    tmp_path: Path, tokenizer_path: Path, eos: str, bos_token: str | None
) -> None:
    needs_eos = ("span_corruption", "masked_lm")
    kinds = [kind for kind in OBJECTIVES if eos == "append" or kind not in needs_eos]
    options: dict[str, Any] = {"tokenizer": tokenizer_path, "eos": eos, "bos_token": bos_token}
    stage = WritePacks.model_validate({**options, "objectives": {kind: {"kind": kind} for kind in kinds}})
    template = ApplyChatTemplate(tokenizer=tokenizer_path, template="chatml")
    template.setup({})
    batch = template.apply(rows(*[CONVERSATION] * len(kinds))).drop("reason", "detail")
    batch = batch.with_columns(pl.Series("domain", kinds), pl.format("{}", pl.int_range(pl.len())).alias("id"))
    batch = pl.concat([batch.with_columns(domain=pl.lit("other")), batch])
    assert set(stage.columns().reads) == {"id", "text", "domain", "chat"}
    assert set(stage.needed_kernels()) == {"document_ends", "hashing"} | ({"noising"} if eos == "append" else set())
    stage.check()
    stage.setup({})
    outputs = TaskOutputs(tmp_path)
    writer = stage.open(0, outputs)
    writer.write(batch)
    shards = writer.close()
    outputs.commit()
    stage.finish(tmp_path, shards)
    for domain in ["other", *kinds]:
        pack = Pack(tmp_path / "packs" / domain)
        assert verify_pack(pack.folder) == []
        kind = "plain_text" if domain == "other" else domain
        assert pack.manifest.objective == OBJECTIVES[kind]().model_dump(mode="json")
        mask = pack.shards[0].mask
        assert (mask is not None) == OBJECTIVES[kind].masks
        if mask is not None:
            assert 0 < int(mask[:].sum()) < len(mask)
        parquet = pl.read_parquet(pack.folder / "00000.parquet")
        assert ("mask" in parquet.columns) == OBJECTIVES[kind].masks
    if eos == "none":
        for kind in needs_eos:
            broken = WritePacks.model_validate({**options, "objective": {"kind": kind}})
            with pytest.raises(ConfigError, match=r"with EOS; set write_packs\.eos to append"):
                broken.check()
