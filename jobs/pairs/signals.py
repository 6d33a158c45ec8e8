"""The signals of a log, and what each becomes: a grade and a weight. docs/logs.md has why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Signal:
    """What one kind of evidence says about a query and an item."""

    grade: int
    """Of the label: 0 is judged irrelevant."""
    weight: float
    """Of the label, if the evidence is complete."""
    rule: str
    """For a person."""


SIGNALS: dict[str, Signal] = {
    "editorial": Signal(1, 1.0, "a person chose the pair; its own score is the grade"),
    "thumbs_up": Signal(3, 1.0, "a person liked the result"),
    "purchase": Signal(3, 1.0, "bought after the query"),
    "cart": Signal(2, 0.8, "put into the cart"),
    "wishlist": Signal(2, 0.8, "saved for later"),
    "dwell": Signal(2, 0.7, "clicked, and stayed for `dwell_s` or longer"),
    "citation": Signal(2, 0.7, "the answer cited the document"),
    "click": Signal(1, 0.5, "clicked at least as often as results at these positions are on average"),
    "retrieval_eval": Signal(1, 0.5, "relevant in an evaluation's lines"),
    "thumbs_down": Signal(0, 1.0, "a person disliked the result"),
    "deletion": Signal(0, 1.0, "removed by the user"),
    "quick_return": Signal(0, 0.5, "clicked, and most of those who clicked were back within ten seconds"),
    "skipped": Signal(0, 0.4, "shown above a click, and never used itself"),
    "not_clicked": Signal(0, 0.4, "shown where at least one click was expected, and hardly clicked"),
    "reformulated": Signal(
        0, 0.2, "among the first ten of a query that was reformulated with success within 30 seconds, and never used itself"
    ),
    "not_cited": Signal(0, 0.2, "retrieved for an answer that cited others"),
}
EXPLICIT = {"editorial", "thumbs_up", "purchase", "cart", "wishlist", "thumbs_down", "deletion", "citation"}
"""One action is enough: no prior, and no rate of clicks decides."""
ACTIONS = {
    "impression": ("impression", "view", "show", "shown", "display", "item_view", "product_view", "search_result_impression"),
    "click": ("click", "item_click", "product_click", "click_through", "click-through", "select", "select_item", "open"),
    "dwell": ("dwell", "dwell_time", "read", "page_dwell", "time_on_page"),
    "cart": ("add_to_cart", "cart", "addtocart", "add-to-cart", "basket"),
    "purchase": ("purchase", "buy", "order", "checkout", "transaction"),
    "wishlist": ("wishlist", "add_to_wishlist", "save", "bookmark", "favorite", "favourite"),
    "thumbs_up": ("thumbs_up", "like", "upvote", "thumbsup"),
    "thumbs_down": ("thumbs_down", "dislike", "downvote", "thumbsdown"),
    "citation": ("citation", "cite", "cited"),
    "deletion": ("delete", "deletion", "remove", "remove_from_cart", "hide", "dismiss", "reject"),
}
"""Signal -> actions that are it."""
POSITIVE_ACTIONS = ("click", "dwell", "cart", "purchase", "wishlist", "thumbs_up", "citation")
"""Actions after which a query was answered."""
CODES = {name: number for number, name in enumerate(ACTIONS)}
"""Action as it is stored."""


def action_codes(own: dict[str, str]) -> dict[str, int]:
    """Name of an action in a log, in lower case -> its code. `own` wins over the usual names."""
    usual = {name: CODES[signal] for signal, names in ACTIONS.items() for name in names}
    return usual | {name.lower(): CODES[signal] for name, signal in own.items()}
