"""Stage `remove_lines`: removes lines as C4 or RefinedWeb do, and drops the pages that they drop."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import polars as pl
from pydantic import Field

from dataeng.document import TEXT, drop_where
from dataeng.errors import ConfigError, nearest
from dataeng.stage import Columns, RowStage

if TYPE_CHECKING:
    from dataeng.kernels.lines import Edited
    from dataeng.kernels.text import TextBuffers

Parameter = float | int | bool | str | None

_C4: dict[str, Parameter] = {
    "max_word_chars": 1000,  # a longer word removes its line
    "remove_citations": True,  # [12], [edit] and [citation needed]
    "end_marks": ".?!\"'",  # a line must end with one of them, and not with "..."
    "min_line_words": 3,
    "count_citations_as_words": True,
    "lorem_ipsum": True,  # drops the page
    "javascript": True,
    "curly_bracket": True,  # drops the page
    "policy": True,  # "terms of use", "privacy policy", "cookie policy", "use(s) (of) cookies"
    "min_sentences": 5,  # fewer drop the page
    "bad_words": None,  # one in what is left drops the page
}

#: Preset → its parameters. None switches a rule off.
PRESETS: dict[str, dict[str, Parameter]] = {
    # TensorFlow Datasets 4.9, tensorflow_datasets/text/c4_utils.py: clean_page, then the filter of bad words
    "c4@t5": {
        **_C4,
        "end_marks": '.?!"',
        "min_line_words": 5,
        "count_citations_as_words": False,
        "min_sentences": 3,
        "bad_words": True,
    },
    # datatrove 0.10.1, C4QualityFilter
    "c4@datatrove": _C4,
    # the same as FineWeb's pipeline runs it
    "c4@fineweb": {**_C4, "end_marks": None},
    # mlfoundations/dclm, dclm_baseline_refinedweb.yaml from word_counter_enricher to word_removal_ratio_filter
    "refinedweb@dclm": {
        "max_uppercase_share": 0.5,
        "max_numeric_share": 0.999999,
        "counters": True,  # "3 likes", "1.2k followers"
        "min_line_words": 2,
        "max_phrase_line_words": 10,  # lines in which "items in cart", final "Read more…" and initial "Sign-in" are cut
        "max_removed_words_share": 0.05,  # a greater one drops the page
    },
}


#: Of what type a parameter is whose value in a preset may be null.
_EXAMPLES: dict[str, Parameter] = {"end_marks": "", "bad_words": True}


class RemoveLines(RowStage):
    """Removes lines from texts by the rules of a preset, and drops the pages that the preset's source drops.

    Presets: `c4@t5` (the original code), `c4@datatrove`, `c4@fineweb` (lines need no final punctuation) and
    `refinedweb@dclm`. Their parameters, all of which `set` can change, are in `dataeng/stages/quality/remove_lines.py`.

    Signals: `c4_lines` or `refinedweb_lines` is how many lines there were, `…_removed` how many were removed, with one
    more count per rule (`c4_lines_removed_short`). A line counts for the first rule that removes it. Reasons:

    - `c4_lorem_ipsum`, `c4_curly_bracket` (only in lines that the rules before left), `c4_too_few_sentences`
    - `c4_bad_words` (only in `c4@t5`): a word of LDNOOBW's list for the document's language is left, standing alone
      (anywhere in Japanese, Thai and Chinese)
    - `refinedweb_words_removed`: more than `max_removed_words_share` of the words went; `refinedweb_no_words`: there
      were none; `refinedweb_no_lines`: none is left

    A dropped page keeps its text as it was. C4 strips lines and joins them with a line feed, so blank lines go, too.
    """

    kernels: ClassVar[tuple[str, ...]] = ("c4_lines", "refinedweb_lines")

    preset: str = Field(default="c4@datatrove", description="Whose rules: one of the presets above")
    set: dict[str, Parameter] = Field(
        default_factory=dict, description="Other values for parameters; null switches a rule off"
    )
    language: str | None = Field(
        default=None, description="Whose bad words are looked for; null takes each document's `language`. C4 took `en`"
    )

    def parameters(self) -> dict[str, Parameter]:
        """Returns the preset's parameters with those of this stage.

        Raises:
          ConfigError: an unknown preset or parameter, or a value of the wrong type.
        """
        if self.preset not in PRESETS:
            raise ConfigError(f"remove_lines: there is no preset '{self.preset}'{nearest(self.preset, PRESETS)}")
        known = PRESETS[self.preset]
        for name, value in self.set.items():
            if name not in known:
                raise ConfigError(f"remove_lines: {self.preset} has no parameter '{name}'{nearest(name, known)}")
            _check_value(name, value, _EXAMPLES.get(name, known[name]))
        return {**known, **self.set}

    @property
    def family(self) -> str:
        return self.preset.partition("@")[0]

    def columns(self) -> Columns:
        from dataeng.kernels import c4_lines, refinedweb_lines

        counts = c4_lines.COUNTS if self.family == "c4" else refinedweb_lines.COUNTS
        reads = (TEXT, "language") if self.parameters().get("bad_words") and self.language is None else (TEXT,)
        return Columns(reads=reads, signals={self._signal(count): pl.Int64() for count in counts})

    def _signal(self, count: str) -> str:
        return f"{self.family}_lines" if count == "lines" else f"{self.family}_lines_{count}"

    def apply(self, batch: pl.DataFrame) -> pl.DataFrame:
        from dataeng.kernels import c4_lines, refinedweb_lines
        from dataeng.kernels.text import text_buffers

        texts = text_buffers(batch.get_column(TEXT))
        rules = c4_lines if self.family == "c4" else refinedweb_lines
        edited = self._remove_c4(texts) if self.family == "c4" else self._remove_refinedweb(texts)
        reason = pl.Series("_reason", edited.reasons).replace_strict(
            dict(enumerate((None, *(f"{self.family}_{reason}" for reason in rules.REASONS[1:])))),
            return_dtype=pl.String,
        )
        batch = batch.with_columns(
            *(pl.Series(self._signal(name), edited.counts[:, i]) for i, name in enumerate(rules.COUNTS)),
            edited.texts.alias("_edited"),
            reason,
            pl.format("{} of {} lines removed", pl.lit(edited.counts[:, 1]), pl.lit(edited.counts[:, 0])).alias(
                "_detail"
            ),
        )
        if self.parameters().get("bad_words"):
            batch = self._judge_words(batch)
        goes = pl.col("_reason").is_not_null()
        left = pl.when(pl.col(TEXT).is_null() | goes).then(pl.col(TEXT)).otherwise(pl.col("_edited"))
        batch = drop_where(batch.with_columns(left.alias(TEXT)), goes, pl.col("_reason"), pl.col("_detail"))
        return batch.drop("_edited", "_reason", "_detail")

    def _judge_words(self, batch: pl.DataFrame) -> pl.DataFrame:
        """Gives pages of which a bad word is left a reason; the others are not searched."""
        from dataeng.stages.quality.quality_signals import count_bad_words

        rows = batch.get_column("_reason").is_null().arg_true()
        kept = batch.select("_edited", pl.lit(self.language).alias("language") if self.language else "language")[rows]
        found = count_bad_words(kept.get_column("_edited").fill_null(""), kept.get_column("language")).fill_null(0)
        bad = found > 0
        rows, found = rows.filter(bad), found.filter(bad)
        words = pl.select(pl.format("{} bad words left", found)).to_series()
        return batch.with_columns(
            batch.get_column("_reason").scatter(rows, "c4_bad_words"),
            batch.get_column("_detail").scatter(rows, words),
        )

    def _remove_c4(self, texts: TextBuffers) -> Edited:
        import numpy as np

        from dataeng.kernels.c4_lines import C4Limits, remove_c4_lines

        values = self.parameters()
        marks = np.zeros(128, np.uint8)
        marks[[ord(mark) for mark in str(values["end_marks"] or "")]] = 1
        limits = C4Limits(
            max_word_chars=_integer(values["max_word_chars"]),
            citations=bool(values["remove_citations"]),
            end_marks=marks,
            min_line_words=_integer(values["min_line_words"]),
            words_after_citations=not values["count_citations_as_words"],
            lorem_ipsum=bool(values["lorem_ipsum"]),
            javascript=bool(values["javascript"]),
            curly_bracket=bool(values["curly_bracket"]),
            policy=bool(values["policy"]),
            min_sentences=_integer(values["min_sentences"]),
        )
        return remove_c4_lines(texts, limits)

    def _remove_refinedweb(self, texts: TextBuffers) -> Edited:
        from dataeng.kernels.refinedweb_lines import RefinedWebLimits, remove_refinedweb_lines

        values = self.parameters()
        limits = RefinedWebLimits(
            max_uppercase_share=_number(values["max_uppercase_share"]),
            max_numeric_share=_number(values["max_numeric_share"]),
            counters=bool(values["counters"]),
            min_line_words=_integer(values["min_line_words"]),
            max_phrase_line_words=_integer(values["max_phrase_line_words"]),
            max_removed_words_share=_number(values["max_removed_words_share"]),
        )
        return remove_refinedweb_lines(texts, limits)


def _check_value(name: str, value: Parameter, example: Parameter) -> None:
    """Raises a `ConfigError` unless ``value`` is off, or of the type of ``example`` and in range."""
    if value is None:
        return
    if isinstance(example, bool):
        fits, wanted = isinstance(value, bool), "true or false"
    elif isinstance(example, str):
        fits, wanted = isinstance(value, str) and value.isascii() and value != "", "ASCII characters"
    elif isinstance(example, int):
        fits, wanted = isinstance(value, int) and not isinstance(value, bool) and value >= 0, "a whole number from 0 on"
    else:
        fits, wanted = not isinstance(value, bool | str) and 0 <= value <= 1, "a share from 0 to 1"
    if not fits:
        raise ConfigError(f"remove_lines: '{name}' is {value!r}; expected {wanted}, or null for off.")


def _integer(value: Parameter) -> int:
    """The kernels' way to say off is a negative number."""
    return -1 if value is None else int(value)


def _number(value: Parameter) -> float:
    return -1.0 if value is None else float(value)
