"""What the pairs are good for: pure, from counts to advice."""

from __future__ import annotations

from dataclasses import dataclass

from eval.readiness import COLLECT, RERANKER, THIN


@dataclass(frozen=True)
class Readiness:
    """The advice, and why."""

    answer: str
    examples: int
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, object]:
        """For pairs.json."""
        return {"answer": self.answer, "examples": self.examples, "reasons": list(self.reasons)}


def readiness(
    examples: int,
    *,
    queries: int,
    dev: int,
    negatives: int,
    shown: bool,
    timed: bool,
    positions: bool,
    users: bool,
    ctr: list[float],
) -> Readiness:
    """What to do with so many examples, and what to log from now on.

    Args:
        examples: relevant labels of training queries that are not synthetic. queries: those. dev: queries held out.
        negatives: labels that judge an item irrelevant. shown, timed, positions, users: whether the log has these.
        ctr: share of the queries with a click in each quarter of the log, oldest first; empty without times.
    """
    if examples < COLLECT:
        answer = f"Collect more data: {examples:,} usable examples are few. Below {COLLECT:,}, try an off-the-shelf re-ranker."
    elif examples < RERANKER:
        answer = (
            f"Fine-tune a re-ranker: {examples:,} usable examples are enough for that. Fine-tuning the embeddings usually pays "
            f"from {RERANKER:,} on. `hardmine probe` tells whether it does here."
        )
    else:
        answer = f"Fine-tune the embeddings: {examples:,} usable examples are {RERANKER:,} or more."
    reasons = []
    if queries and examples / queries < THIN:
        thickness = f"{examples / queries:.1f} relevant items for each query"
        reasons.append(f"Labels are thin: {thickness}. Most relevant items are unlabelled, so keep mining's margin on.")
    if not negatives:
        reasons.append("Nothing is judged irrelevant. Log the results that were shown, so that skipped ones are known.")
    if dev < 100:
        reasons.append(f"Only {dev:,} queries are held out for dev; differences below ten points cannot be told from chance.")
    if not shown:
        reasons.append("The log does not say which results were shown: positions cannot be corrected. Log the top 20 to 40.")
    elif not positions:
        reasons.append("Nobody clicked anything that the log shows with its position, so position is not corrected.")
    if not timed:
        reasons.append("The log has no times: it is split by text, and reformulations and quick returns cannot be seen.")
    if not users:
        reasons.append("The log has no users or sessions: bots, reformulations and quick returns cannot be seen.")
    if len(ctr) == 4 and abs(ctr[-1] - ctr[0]) > 0.25 * max(ctr[0], 1e-9):
        change = f"{ctr[0]:.0%} of the queries got a click in its first quarter, {ctr[-1]:.0%} in its last"
        reasons.append(f"The log drifts: {change}. Newer logs say more than older ones.")
    return Readiness(answer, examples, tuple(reasons))
