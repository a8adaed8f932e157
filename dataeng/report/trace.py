"""From a token of a pack back to the document, its address and the crawl record it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from dataeng.engine.run_removal import run_of_pack
from dataeng.errors import ConfigError, DataengError, FormatError, nearest
from dataeng.formats.atomic import sha256_file
from dataeng.formats.pack import Pack
from dataeng.formats.pack_documents import PackedDocument, document_at, find_document
from dataeng.report.explain import Story, explain
from dataeng.report.visible import visible

CONTEXT_TOKENS = 48
MOST_DOCUMENTS = 20
Decode = Callable[[Sequence[int]], str]


@dataclass
class Trace:
    """What is known about one token of a pack."""

    pack: Pack
    offset: int
    token: int
    trained: bool
    document: PackedDocument
    text: tuple[str, str, str] = ("", "", "")
    """Decoded: before the token, the token, after it."""
    undecoded: str = ""
    """Why there is no text."""
    story: Story | None = None
    unknown_story: str = ""
    """Why there is no story."""
    ids: tuple[list[int], list[int]] = field(default_factory=lambda: ([], []))
    """Token ids before and after."""

    @property
    def position(self) -> int:
        """The token's place in the document."""
        return self.offset - self.document.start


def trace(folder: Path, offset: int, shard: str | None = None, context: int = CONTEXT_TOKENS) -> Trace:
    """Finds out where a token came from.

    Args:
      offset: the token's number, counted from the beginning of the pack, or of ``shard``.
      context: tokens of the same document to decode on either side.

    Raises:
      FormatError: there is no such token, or the pack is damaged.
      ConfigError: there is no such shard.
    """
    pack = Pack(folder)
    offset += _start_of(pack, shard, offset)
    document = document_at(pack, offset)
    place = pack.locate(offset)
    tokens = pack.shards[place.shard].document(place.document)
    mask = pack.shards[place.shard].mask
    within = offset - int(pack.starts[place.shard])
    found = Trace(
        pack,
        offset,
        int(tokens[place.position]),
        mask is None or bool(mask[within]),
        document,
        ids=(
            tokens[max(0, place.position - context) : place.position].tolist(),
            tokens[place.position + 1 : place.position + 1 + context].tolist(),
        ),
    )
    try:
        found.text = marked(decoder(pack), *found.ids, found.token)
    except DataengError as error:
        found.undecoded = str(error)
    run_dir = run_of_pack(folder)
    if run_dir is not None and "id" in document.row:
        try:
            found.story = explain(run_dir, document.row["id"])
        except DataengError as error:
            found.unknown_story = str(error)
    return found


def _start_of(pack: Pack, shard: str | None, offset: int) -> int:
    if shard is None:
        return 0
    names = [one.name for one in pack.shards]
    if shard not in names:
        raise ConfigError(f"{pack.folder} has no shard '{shard}'{nearest(shard, names)}")
    number = names.index(shard)
    if not 0 <= offset < len(pack.shards[number].tokens):
        raise FormatError(
            f"token {offset:,} is not in shard {shard} of {pack.folder}, which has "
            f"{len(pack.shards[number].tokens):,} tokens."
        )
    return int(pack.starts[number])


def decoder(pack: Pack) -> Decode:
    """Returns a function from token ids to text; special tokens are spelled out.

    Raises:
      FormatError: the tokenizer is missing, is not the one that made the pack, or cannot be read.
    """
    path = pack.folder / pack.manifest.tokenizer
    if not path.is_file():
        raise FormatError(f"the tokenizer is not at {path}")
    if sha256_file(path) != pack.manifest.tokenizer_sha256:
        raise FormatError(f"{path} is not the tokenizer that made this pack")
    from dataeng.stages.tokens.pack_tokenizer import SENTENCEPIECE_SUFFIXES

    if path.suffix in SENTENCEPIECE_SUFFIXES:
        import sentencepiece

        processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        return lambda ids: str(processor.decode(list(ids)))
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    return lambda ids: str(tokenizer.decode(list(ids), skip_special_tokens=False))


def marked(decode: Decode, before: list[int], after: list[int], token: int) -> tuple[str, str, str]:
    """Returns the texts before, of, and after a token.

    A decoder may join tokens (spaces, bytes of one character), so the parts are cut out of longer decodings where
    these begin alike, and decoded alone where they do not.
    """
    head, through, whole = decode(before), decode([*before, token]), decode([*before, token, *after])
    one = through[len(head) :] if through.startswith(head) else decode([token])
    rest = whole[len(through) :] if whole.startswith(through) else decode(after)
    return head, one, rest


def print_trace(console: Console, found: Trace) -> None:
    """Prints what `trace` found."""
    document, row = found.document, found.document.row
    use = "a label" if found.trained else "context only: the mask leaves it out of the loss"
    console.print(
        Text(f"token {found.offset:,} of {visible(str(found.pack.folder))}: id {found.token}, {use}", style="bold"),
        soft_wrap=True,
    )
    last = document.start + document.num_tokens - 1
    rows = {
        "document": row.get("id", "unknown: the pack has no docs.parquet"),
        **{key: row.get(key) for key in ("url", "host", "domain", "language", "date")},
        "crawl record": _record_of(row),
        "position": f"token {found.position:,} of {document.num_tokens:,} (tokens {document.start:,} to {last:,})",
        "row": f"{document.index:,} of shard {document.shard}",
    }
    for key, value in rows.items():
        if value is not None:
            console.print(Text.assemble("  ", (key.ljust(12), "dim"), "  ", visible(str(value))), soft_wrap=True)
    if found.undecoded:
        ids = " ".join(map(str, found.ids[0][-8:])), str(found.token), " ".join(map(str, found.ids[1][:8]))
        console.print(Text(visible(f"text cannot be shown: {found.undecoded}"), style="dim"), soft_wrap=True)
        console.print(Text(f"  {ids[0]} [{ids[1]}] {ids[2]}"), soft_wrap=True)
    else:
        marks = ("", "") if console.is_terminal else ("⟦", "⟧")
        before, token, after = (visible(part) for part in found.text)
        text = Text.assemble(before, (f"{marks[0]}{token}{marks[1]}", "black on yellow"), after)
        console.print(Panel(text, title="text around the token"))
    if found.unknown_story:
        console.print(Text(visible(f"story unknown: {found.unknown_story}"), style="dim"), soft_wrap=True)
    elif found.story is not None:
        for line in _story_lines(found.story, run_of_pack(found.pack.folder)):
            console.print(Text(visible(line)), soft_wrap=True)


def _story_lines(story: Story, run_dir: Path | None) -> Iterator[str]:
    """Yields a run's story of a document in a few lines."""
    yield f"story so far: {story.outcome}"
    for judgement in story.judgements:
        yield f"  {judgement.step}: passed {len(judgement.outcomes)} rules"
    if story.removed_for_it:
        yield f"  documents that were dropped as its duplicates: {len(story.removed_for_it):,}"
    yield f"  the whole story: dataeng explain {run_dir} {story.identity['id']}"


def _record_of(row: dict[str, object]) -> str | None:
    """Returns where a document was found: the file, and in it the record's offset or the row."""
    if row.get("source") is None:
        return None
    return f"{row['source']} at {row['source_offset']}" if row.get("source_offset") is not None else str(row["source"])


def print_documents(console: Console, folder: Path, wanted: str) -> None:
    """Prints where in a pack a document is, by its id (or how that begins) or its URL.

    Raises:
      DataengError: it is not in the pack.
    """
    found = find_document(Pack(folder), wanted)
    if not found:
        raise DataengError(f"no document '{wanted}' in {folder}.")
    for document in found[:MOST_DOCUMENTS]:
        last = document.start + document.num_tokens - 1
        where = f"tokens {document.start:,} to {last:,}, row {document.index:,} of shard {document.shard}"
        url = document.row.get("url")
        console.print(Text(visible(f"{document.row['id']}  {where}{f'  {url}' if url else ''}")), soft_wrap=True)
    if len(found) > MOST_DOCUMENTS:
        console.print(f"and {len(found) - MOST_DOCUMENTS:,} more", highlight=False)
