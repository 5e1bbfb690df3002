"""Fetches papers: from arXiv by their id, what a search there finds, and a PDF by its address.

A fetch has limits on bytes, time and the number of redirects. A redirect stays with the server that was
asked, or goes by https to a host with a public address: a page cannot have this machine read what lies
in its own network. Not covered: repositories, which git fetches (`sources`).
"""

from __future__ import annotations

import socket
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING
from urllib.parse import quote_plus
from xml.etree import ElementTree

from autoresearch.clock import now
from autoresearch.errors import UserError
from autoresearch.text import one_line

if TYPE_CHECKING:
    import httpx2

ARXIV, API = "https://arxiv.org", "https://export.arxiv.org"
ATOM = "{http://www.w3.org/2005/Atom}"
SECONDS, REDIRECTS, FOUND = 60.0, 5, 20
"""Seconds of a fetch, redirects, and papers of a search, at most."""


def arxiv_pdf(number: str, most: int) -> bytes:
    """The PDF of a paper.

    Args:
        number: Its id, such as 2203.15556v1.
        most: Bytes at most.

    Raises:
        UserError: If it cannot be fetched.
    """
    return pdf(f"{ARXIV}/pdf/{number}", most)


def arxiv_search(words: str, most: int) -> str:
    """Title, id, date and summary of the papers that arXiv finds most relevant.

    Args:
        words: To search for, in its query language or plain.
        most: Bytes of the answer at most.

    Raises:
        UserError: If it finds nothing, or cannot be asked.
    """
    query = f"search_query={quote_plus(words if ':' in words else f'all:{words}')}&max_results={FOUND}"
    answer = fetch(f"{API}/api/query?{query}&sortBy=relevance", most)
    try:
        if b"<!DOCTYPE" in answer or b"<!ENTITY" in answer:
            raise ElementTree.ParseError("it declares entities")
        entries = ElementTree.fromstring(answer).findall(f"{ATOM}entry")
    except ElementTree.ParseError as error:
        said = f"arXiv's answer to the search for {one_line(words, 60)} cannot be read: {error}."
        raise UserError(said, "Give the id of a paper.", code=3) from None
    told = []
    for entry in entries:
        title, number, date, summary = (
            " ".join((entry.findtext(f"{ATOM}{key}") or "").split())
            for key in ("title", "id", "published", "summary")
        )
        told.append(f"== {title} ({number.rpartition('/')[2]}, {date[:10]})\n{summary}")
    if not told:
        raise UserError(f"arXiv finds no paper for {one_line(words, 60)}.", "Try other words.")
    return "\n\n".join(told)


def pdf(address: str, most: int) -> bytes:
    """What lies at an address, if it is a PDF.

    Raises:
        UserError: If it is none, or cannot be fetched.
    """
    found = fetch(address, most)
    if not found.lstrip().startswith(b"%PDF-"):
        raise UserError(f"What {address} answers with is not a PDF.", "Give the address of the PDF itself.")
    return found


def fetch(address: str, most: int) -> bytes:
    """What lies at an address that a person named.

    Args:
        address: Of http or https.
        most: Bytes at most.

    Raises:
        UserError: If it cannot be fetched within its limits, or a redirect leads where none may lead.
    """
    import httpx2

    deadline, place = now() + SECONDS, httpx2.URL(address)
    try:
        with httpx2.Client(timeout=SECONDS / 3, headers={"Accept-Encoding": "identity"}) as client:
            for _ in range(REDIRECTS + 1):
                with client.stream("GET", place) as answer:
                    if not answer.has_redirect_location:
                        answer.raise_for_status()
                        return _body(answer, address, most, deadline)
                    place = _redirected(answer, address)
    except httpx2.HTTPStatusError as error:
        status = error.response.status_code
        raise UserError(f"There is nothing at {address}: its server answers {status}.", code=3) from None
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        said = f"{address} could not be fetched ({type(error).__name__})."
        raise UserError(said, "Is there a network? Without one, give the file.", code=3) from None
    raise UserError(f"{address} is redirected more than {REDIRECTS} times.", "Give the file.", code=3)


def _body(answer: httpx2.Response, address: str, most: int, deadline: float) -> bytes:
    """The bytes of an answer, as they come: nothing is unpacked, so the limit holds for what is kept."""
    parts, size = [], 0
    for part in answer.iter_raw():
        parts.append(part)
        size += len(part)
        if size > most:
            raise UserError(f"{address} has more than {most / 1e6:g} MB.", "Give an excerpt.")
        if now() > deadline:
            raise UserError(f"{address} took longer than {SECONDS:g} s.", "Give the file.", code=3)
    return b"".join(parts)


def _redirected(answer: httpx2.Response, address: str) -> httpx2.URL:
    """Where an answer leads, if one may go there."""
    before, after = answer.url, answer.url.join(answer.headers["location"])
    same = (after.scheme, after.host, after.port) == (before.scheme, before.host, before.port)
    if not same and (after.scheme != "https" or not _is_public(after.host)):
        raise UserError(
            f"{address} leads to {one_line(str(after), 200)}, which is not fetched.",
            "A redirect may only go to a public host by https. Give the file.",
            code=3,
        )
    return after


def _is_public(host: str) -> bool:
    """Whether all addresses of a host are public; a host that is not known here fails when it is asked."""
    try:
        known = {str(found[4][0]).partition("%")[0] for found in socket.getaddrinfo(host, None)}
    except OSError:
        return True
    addresses = map(ip_address, known)
    return all(
        (a.ipv4_mapped if isinstance(a, IPv6Address) and a.ipv4_mapped else a).is_global for a in addresses
    )
