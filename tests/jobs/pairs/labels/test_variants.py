"""Spelling variants are found by hashes, some texts at a time; a slow comparison of all pairs finds the same."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from jobs.pairs.labels import texts as module
from jobs.pairs.labels.texts import variants


def slow(texts: list[str], counts: list[int]) -> set[int]:
    """The texts that are a variant of any other one."""
    words: Counter[str] = Counter()
    for text, count in zip(texts, counts, strict=True):
        words.update(dict.fromkeys(text.split(), count))
    return {
        one
        for one in range(len(texts))
        for other in range(len(texts))
        if module._is_variant(texts[one], texts[other], counts[one], counts[other], words)
    }


@pytest.mark.parametrize("together", [7, 10_000])
def test_hashes_find_what_a_comparison_of_all_pairs_finds(monkeypatch: pytest.MonkeyPatch, together: int) -> None:
    monkeypatch.setattr(module, "FORMS_OF", together)
    rng = random.Random(5)
    frequent = ["running shoe", "wooden table lamp", "leather jacket 42", "garden knife"]
    texts, counts = list(frequent), [900, 700, 400, 300]
    while len(texts) < 150:
        text = rng.choice(frequent)
        for _ in range(rng.randint(1, 2)):
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice(["", "x", text[at] * 2]) + text[at + 1 :]
        text = " ".join(text.split())
        if text not in texts:
            texts.append(text)
            counts.append(rng.randint(1, 60))
    got = variants(texts, counts)
    assert {one for one, _ in got} == slow(texts, counts)
    assert len(got) > 30
    assert all(counts[meant] >= 10 * counts[one] for one, meant in got)
