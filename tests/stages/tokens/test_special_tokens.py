"""Sets of special tokens by name."""

from __future__ import annotations

import pytest

from dataeng.errors import ConfigError
from dataeng.stages.tokens.special_tokens import SETS, expand, roles, unknown_token


def test_sets_are_replaced_by_their_tokens_in_order() -> None:
    assert expand(["<|endoftext|>", "@chatml", "<x>", "@fim"]) == (
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<x>",
        "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>",
    )  # fmt: skip
    assert expand([]) == ()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["@chatlm"], "unknown set of special tokens '@chatlm'; did you mean '@chatml'"),
        (["<pad>", "@sentence"], "listed twice: <pad>"),
        ([""], "empty"),
    ],
)
def test_wrong_names_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        expand(names)
    assert caught.value.option == "special_tokens"


def test_every_set_is_complete_and_without_doubles() -> None:
    assert all(name.startswith("@") and expand([name]) == tokens for name, tokens in SETS.items())


def test_roles_are_found_among_the_tokens() -> None:
    assert roles(expand(["@sentence"])) == {
        "unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
    }  # fmt: skip
    assert roles(["<|endoftext|>", "@no"]) == {"eos_token": "<|endoftext|>"}
    assert roles(expand(["@bert"]))["mask_token"] == "[MASK]"
    assert unknown_token(["a", "[UNK]"]) == "[UNK]" and unknown_token(["a"]) is None
