"""Exporting: check the packs, write all files into a hidden folder, and rename it into place."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dataeng.errors import ConfigError, nearest
from dataeng.exports import datatrove, huggingface, litdata, llmc, mds, megatron, olmo
from dataeng.exports.corpus import Corpus, Domain, open_corpus
from dataeng.exports.layout import Format, Job, Options
from dataeng.exports.output import (
    ExportedDomain,
    ExportManifest,
    OutputFolder,
    find_export,
    unfinished_folder,
    write_export_manifest,
)

WRITER_VERSION = 1
"""Part of every export's fingerprint: a change of any byte that is written raises it."""

FORMATS: dict[str, Format] = {
    "datatrove": Format("datatrove and nanotron (.ds)", datatrove.write, datatrove.point_at),
    "huggingface": Format(
        "Hugging Face datasets (Parquet)", huggingface.write, huggingface.point_at, rows=True, finish=huggingface.finish
    ),
    "litdata": Format("litData and LitGPT (token chunks)", litdata.write, litdata.point_at, rows=True),
    "llmc": Format(
        "llm.c and modded-nanogpt (.bin, 2 bytes)",
        llmc.write,
        llmc.point_at,
        masks=False,
        largest_vocabulary=65_536,
        too_large="--to llmc-llama3 writes 4 bytes a token, for llm.c's train_llama3.py",
    ),
    "llmc-llama3": Format("llm.c's train_llama3.py (.bin, 4 bytes)", llmc.write_llama3, llmc.point_at, masks=False),
    "mds": Format("MosaicML Streaming and LLM-Foundry (MDS)", mds.write, mds.point_at, rows=True),
    "megatron": Format("Megatron-LM (one .bin/.idx a domain)", megatron.write, megatron.point_at, masks=False),
    "olmo": Format("OLMo-core and Dolma (.npy)", olmo.write, olmo.point_at),
}


@dataclass(frozen=True)
class Exported:
    """What `export` did."""

    manifest: ExportManifest
    lines: list[str]
    """Configuration or code that points the reader at the export."""
    written: bool
    """False: the same export was there already."""


def export(
    target: Path,
    name: str,
    output: Path,
    options: Options | None = None,
    *,
    drop_mask: bool = False,
    verify: bool = True,
) -> Exported:
    """Writes the packs that ``target`` stands for in another library's format.

    Args:
      target: the folder of a pack or of a run, or a mixture manifest.
      name: one of `FORMATS`.
      output: a folder that is not there, or empty, or holds the same export.
      drop_mask: leave loss masks out; formats that have none refuse packs with masks otherwise.
      verify: hash the packs' files first, and those of an export that is there already.

    Raises:
      ConfigError: unknown format, an option that it does not have, or an output folder that holds something else.
      FormatError: a damaged pack, or one that the format cannot hold.
      LeaseError: another process is writing the same export.
    """
    options = options or Options()
    if name not in FORMATS:
        raise ConfigError(f"unknown format '{name}'{nearest(name, FORMATS)}")
    form = FORMATS[name]
    corpus = open_corpus(target, verify)
    _check(name, form, corpus, options, drop_mask)
    job = Job(corpus, options, corpus.masked and not drop_mask, output.absolute())
    fingerprint = _fingerprint(name, job)
    lines = form.point_at(job)
    if (found := find_export(output, fingerprint, verify)) is not None:
        return Exported(found, lines, written=False)
    with unfinished_folder(output) as folder:
        domains = {domain.name: _write_domain(form, job, domain, folder) for domain in corpus.domains}
        rest = OutputFolder(folder)
        if corpus.tokenizer is not None:
            _copy_tokenizer(corpus, rest)
        if form.finish is not None:
            form.finish(job, rest)
        manifest = ExportManifest(
            format=name,
            fingerprint=fingerprint,
            options=asdict(options),
            tokenizer_sha256=corpus.tokenizer_sha256,
            vocab_size=corpus.vocab_size,
            eos_id=corpus.eos_id,
            masked=job.masked,
            domains=domains,
            other_files=rest.files,
        )
        write_export_manifest(folder, manifest)
    return Exported(manifest, lines, written=True)


def _check(name: str, form: Format, corpus: Corpus, options: Options, drop_mask: bool) -> None:
    length = options.sequence_length
    if form.largest_vocabulary is not None and corpus.vocab_size > form.largest_vocabulary:
        raise ConfigError(
            f"the vocabulary has {corpus.vocab_size:,} tokens; {name} holds ids of up to "
            f"{form.largest_vocabulary:,} tokens. {form.too_large}."
        )
    if corpus.masked and not form.masks and not drop_mask:
        able = ", ".join(sorted(other for other, its in FORMATS.items() if its.masks))
        raise ConfigError(
            f"the packs have loss masks, and {name} has no place for them. Choose one of {able}, or "
            "--drop-mask to train on every token."
        )
    if length is None:
        return
    if not form.rows:
        able = ", ".join(sorted(other for other, its in FORMATS.items() if its.rows))
        raise ConfigError(f"{name} has no rows: its reader cuts them. --sequence-length is for {able}.")
    for domain in corpus.domains:
        if domain.num_tokens < length:
            raise ConfigError(
                f"the domain '{domain.name}' has {domain.num_tokens:,} tokens: not one row of {length:,}. Choose a "
                "smaller --sequence-length."
            )


def _fingerprint(name: str, job: Job) -> str:
    """Returns what decides the bytes of an export: format, options, weights, the packs' manifests, and where it lies.

    The place is part of it because configuration that is written along (datatrove's metadata) names it.
    """
    packs = {
        domain.name: [pack.manifest.model_dump(mode="json") for pack in domain.packs] for domain in job.corpus.domains
    }
    parts: dict[str, Any] = {
        "version": WRITER_VERSION,
        "format": name,
        "options": asdict(job.options),
        "masked": job.masked,
        "weights": job.corpus.weights(),
        "packs": packs,
        "output": str(job.output),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write_domain(form: Format, job: Job, domain: Domain, folder: Path) -> ExportedDomain:
    place = "." if job.corpus.alone else domain.name
    out = OutputFolder(folder, place)
    num_rows = form.write(job, domain, out)
    length = job.options.sequence_length
    return ExportedDomain(
        folder=place,
        weight=job.corpus.weights()[domain.name],
        num_documents=domain.num_documents,
        num_tokens=domain.num_tokens,
        num_rows=num_rows,
        num_tokens_left_out=domain.num_tokens - num_rows * length if num_rows is not None and length else 0,
        files=out.files,
    )


def _copy_tokenizer(corpus: Corpus, out: OutputFolder) -> None:
    """Puts the tokenizer into ``tokenizer/``, so that ``AutoTokenizer.from_pretrained`` takes the folder."""
    assert corpus.tokenizer is not None
    content = corpus.tokenizer.read_bytes()
    out.write(f"tokenizer/{corpus.tokenizer.name}", content)
    if corpus.tokenizer.suffix != ".json":
        return
    named = {token["id"]: token["content"] for token in json.loads(content).get("added_tokens", ())}
    described: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if corpus.eos_id in named:
        described["eos_token"] = named[corpus.eos_id]
    out.write("tokenizer/tokenizer_config.json", json.dumps(described, ensure_ascii=False, indent=2).encode())
