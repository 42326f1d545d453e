"""Product text of the Amazon files, made fit for RecBole's atomic files."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterator

from recbole_stream.atomic import MISSING
from recbole_stream.data.amazon_files import Release

__all__ = ["ITEM_HEADER", "MAX_CHARACTERS", "atomic_cell", "clean_text", "item_cells", "one_line", "parse_price"]

ITEM_HEADER = (
    "item_id:token",
    "title:token_seq",
    "brand:token_seq",
    "categories:token_seq",
    "features:token_seq",
    "description:token_seq",
    "price:float",
)

# Longest text of one column, in characters. Sentence encoders read 256 to 512 word pieces, about 1,000 to 2,000
# characters; what comes after would only fill the disk.
MAX_CHARACTERS = 2000

# Only the names of HTML: "<NEW> Guitar" is text. Scripts, styles and comments go with what is inside them, other tags
# leave their text.
_TAGS = (
    "a abbr address area article aside b base big blockquote body br button caption center cite code col colgroup "
    "dd del dfn div dl dt em embed fieldset figcaption figure font footer form h[1-6] head header hr html i "
    "iframe img input ins kbd label legend li link main map mark meta nav noscript object ol option p param pre q "
    "s samp script section select small source span strike strong style sub sup table tbody td textarea tfoot th "
    "thead title tr tt u ul var video wbr"
)
_MARKUP = re.compile(
    rf"<(script|style)\b.*?</\1\s*>|<!--.*?-->|</?(?:{'|'.join(_TAGS.split())})\b[^<>]*>", re.IGNORECASE | re.DOTALL
)
# Parts of the web page that the 2018 crawl took for product data: JavaScript and style sheets.
_PAGE_CODE = re.compile(
    r"getTime\(\)|\bfunction\s*\([\w\s,]*\)\s*\{|\bvar\s+\w+\s*=|\{\s*[a-z-]+\s*:[^{}]*\}", re.IGNORECASE
)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")
# The 2018 crawl kept the page's "by", on a line of its own, in front of some brands.
_BYLINE = re.compile(r"\s*by\s*\n")
_PRICE = re.compile(r"(?:from\s*)?\$?\s*(\d[\d,]*(?:\.\d+)?)", re.IGNORECASE)


def clean_text(raw: str) -> str:
    """One line of plain text: entities decoded, tags dropped, white space and control characters to single spaces.

    Page code in place of text gives "". Not longer than `MAX_CHARACTERS`, cut between words.
    """
    # Ten times the limit leaves room for markup, and keeps a page-long description from costing seconds.
    # Unescaped twice, because the crawls hold entities of entities (`&amp;quot;`).
    text = _MARKUP.sub(" ", html.unescape(html.unescape(raw[: 10 * MAX_CHARACTERS])))
    if _PAGE_CODE.search(text):
        return ""
    return _cut(one_line(text))


def one_line(text: str) -> str:
    """White space and control characters to single spaces."""
    return " ".join(_UNPRINTABLE.sub(" ", text).split())


def parse_price(raw: object) -> float | None:
    """US dollars: of a number as it is, of a text ("$1,299.00", "from 4.50", "$5 - $9") the first amount, else None."""
    if isinstance(raw, str):
        match = _PRICE.match(raw.strip())
        return float(match[1].replace(",", "")) if match else None
    return float(raw) if isinstance(raw, (int, float)) and math.isfinite(raw) else None


def atomic_cell(text: str) -> str:
    """`text` as a cell that every reader gives back whole.

    RecBole reads through pandas, where a quote at the beginning opens a quoted
    field and words such as "NA" count as missing. One leading space prevents
    both and is no token: RecBole splits token sequences at spaces and drops
    the empty ones.
    """
    return f" {text}" if text.startswith('"') or text in MISSING else text


def item_cells(item: str, record: dict, release: Release) -> list[str]:
    """One row of the `.item` file, in the order of `ITEM_HEADER`.

    Args:
        item: its id.
        record: its metadata, {} where there is none.
        release: names the fields of `record`.

    Returns:
        cells, `[len(ITEM_HEADER)]`, "" where the record says nothing.
    """
    brand = record.get(release.brand)
    if isinstance(brand, str):
        brand = _BYLINE.sub("", brand, count=1)
    # A product on several shelves repeats the upper ones: each name once, in the order of the first path.
    categories = dict.fromkeys(_pieces(record.get(release.categories)))
    price = parse_price(record.get("price"))
    texts = (
        " ".join(_pieces(record.get("title"))),
        " ".join(_pieces(brand)),
        ", ".join(categories),
        " ".join(_pieces(record.get(release.features))),
        " ".join(_pieces(record.get("description"))),
    )
    return [item, *(atomic_cell(_cut(text)) for text in texts), "" if price is None else f"{price:.2f}"]


def _pieces(value: object) -> Iterator[str]:
    """The non-empty texts in a text, a list, or a list of lists, cleaned."""
    if isinstance(value, list):
        for part in value:
            yield from _pieces(part)
    elif isinstance(value, str):
        text = clean_text(value)
        if text:
            yield text


def _cut(text: str) -> str:
    if len(text) <= MAX_CHARACTERS:
        return text
    head = text[: MAX_CHARACTERS + 1]
    return head[: head.rfind(" ")] if " " in head else head[:MAX_CHARACTERS]
