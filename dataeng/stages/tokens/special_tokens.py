"""Special tokens by the names of their sets: end of text, sentence marks, chat roles, fill-in-the-middle.

A set is named with ``@``: ``["<|endoftext|>", "@chatml", "@fim"]``. The tokens of a set keep its order.
"""

from __future__ import annotations

from collections.abc import Iterable

from dataeng.errors import ConfigError, nearest

END_OF_TEXT = "<|endoftext|>"

#: Set → its tokens. Each names where its spelling is used.
SETS: dict[str, tuple[str, ...]] = {
    "@gpt2": (END_OF_TEXT,),
    "@sentence": ("<unk>", "<s>", "</s>", "<pad>"),  # SentencePiece's control symbols, in Llama 2's order
    "@bert": ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    "@llama3": ("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "@chatml": ("<|im_start|>", "<|im_end|>"),  # roles are text between the two: OpenAI, Qwen, SmolLM
    "@roles": ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"),  # one token a role: Zephyr, Phi, OLMo
    "@fim": ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),  # Qwen2.5-Coder; cl100k, too
    "@fim_starcoder": ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"),
}

#: What may stand for a piece that is not in the vocabulary.
UNKNOWN = ("<unk>", "[UNK]", "<|unk|>", "<UNK>")

_ROLES = {
    "unk_token": UNKNOWN,
    "bos_token": ("<s>", "<|begin_of_text|>", "[CLS]", "<|startoftext|>"),
    "eos_token": ("</s>", "<|end_of_text|>", END_OF_TEXT, "[SEP]"),
    "pad_token": ("<pad>", "[PAD]", "<|pad|>"),
    "mask_token": ("[MASK]", "<mask>"),
}


def expand(names: Iterable[str]) -> tuple[str, ...]:
    """Returns special tokens with sets replaced by what is in them.

    Raises:
      ConfigError: an unknown set, an empty token, or a token that is there twice.
    """
    tokens: list[str] = []
    for name in names:
        if name.startswith("@") and name not in SETS:
            raise ConfigError(f"unknown set of special tokens '{name}'{nearest(name, SETS)}", "special_tokens")
        tokens += SETS.get(name, (name,))
    twice = sorted({token for token in tokens if tokens.count(token) > 1})
    if twice:
        raise ConfigError(f"special tokens are listed twice: {', '.join(twice)}.", "special_tokens")
    if "" in tokens:
        raise ConfigError("a special token is empty.", "special_tokens")
    return tuple(tokens)


def unknown_token(tokens: Iterable[str]) -> str | None:
    """Returns the special token for what is not in the vocabulary, if there is one."""
    return next((token for token in tokens if token in UNKNOWN), None)


def roles(tokens: Iterable[str]) -> dict[str, str]:
    """Returns role → token (``eos_token``, …) as a ``tokenizer_config.json`` has them."""
    known = set(tokens)
    found = {role: next((token for token in candidates if token in known), None) for role, candidates in _ROLES.items()}
    return {role: token for role, token in found.items() if token is not None}
