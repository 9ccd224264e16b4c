"""The last fills of the evaluation report: a list with pages that is searched as one types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trading_core.plots import embedding, page
from trading_core.plots.evaluation_data import Blotter, FillRow

KEPT = 2_000  # fills that the page holds
_HEADS = ("Session", "Strategy", "Symbol", "Side", "Shares", "Price", "Notional", "Costs")
_WORDS = 4  # the first columns hold words, the others numbers
_STRATEGY = 1
_DIGITS = ((0, 2), (2, 4), (0, 0), (2, 2))  # least and most after the point


def section(blotter: Blotter) -> str:
    """The section as HTML: the last `KEPT` fills as columns of numbers; `page_scripts.BLOTTER` draws them."""
    fills = blotter.fills[-KEPT:]
    if not fills:
        return page.section("Fills", "<p>Nothing was traded.</p>", anchor="fills")
    strategies = sorted({fill.strategy for fill in fills})
    heads = "".join(f'<th scope="col"{_word(column)}>{page.escape(head)}</th>' for column, head in enumerate(_HEADS))
    content = (
        f'<div data-blotter><script type="application/json">{embedding.compact(_data(fills, strategies))}</script>'
        '<div class="chooser"><label>Search <input type="search" placeholder="symbol, side, date, strategy" '
        'autocomplete="off"></label>'
        f'<label>Strategy <select autocomplete="off"><option value="">all</option>{_options(strategies)}</select></label></div>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="Fills"><table class="fills"><thead><tr>{heads}</tr>'
        '</thead><tbody></tbody></table></div><div class="pages"><button type="button" data-back>Newer</button>'
        '<span data-said role="status"></span><button type="button" data-on>Older</button></div></div>'
    )
    return page.section("Fills", content, page.escape(_lead(blotter, len(fills))), "fills")


def _lead(blotter: Blotter, kept: int) -> str:
    whole = f"The whole list is in {blotter.file} beside this report."
    if kept >= blotter.total:
        return f"All {kept:,} fills, newest first. {whole}"
    return " ".join([f"{kept:,} of {blotter.total:,} fills, newest first.", *filter(None, [blotter.note]), whole])


def _options(strategies: Sequence[str]) -> str:
    return "".join(f'<option value="{k}">{page.escape(name)}</option>' for k, name in enumerate(strategies))


def _word(column: int) -> str:
    return ' class="word"' if column < _WORDS else ""


def _data(fills: Sequence[FillRow], strategies: Sequence[str]) -> dict[str, Any]:
    """Columns, of which the first four hold places in lists of words."""
    worded = (
        [fill.session.isoformat() for fill in fills],
        [fill.strategy for fill in fills],
        [fill.symbol for fill in fills],
        [fill.side for fill in fills],
    )
    words = [sorted(set(column)) if k != _STRATEGY else list(strategies) for k, column in enumerate(worded)]
    places = [{word: k for k, word in enumerate(known)} for known in words]
    columns: list[list[Any]] = [[place[word] for word in column] for column, place in zip(worded, places, strict=True)]
    columns += [
        embedding.numbers([fill.quantity for fill in fills], 4),
        embedding.numbers([fill.price for fill in fills], 4),
        embedding.numbers([fill.quantity * fill.price for fill in fills], 0),
        embedding.numbers([fill.cost for fill in fills], 2),
    ]
    return {
        "columns": columns,
        "words": [*words, *(None for _ in _DIGITS)],
        "digits": [*(None for _ in words), *_DIGITS],
        "searched": list(range(_WORDS)),
        "chosen": _STRATEGY,
    }
