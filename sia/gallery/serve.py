"""A local page that searches: a recording or an image goes in, what is nearest to it comes back.

It listens on 127.0.0.1 alone, under an address that holds a secret, because other users of the machine reach that too.
It serves no file: an answer holds its media in itself, and a row of the collection is all that can be asked for.
"""

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

import uvicorn
from fastapi import APIRouter, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from sia.data.mfcc import LONGEST_SECONDS, read_speech
from sia.errors import UserError
from sia.gallery.page import rendered
from sia.gallery.searched import Offer, answer_of, is_of_embedded_corpus, offers_of
from sia.inference.search import IMAGE_ENDINGS, SPEECH_ENDINGS, Collection, Example
from sia.inference.trained_pair import TrainedPair

HOST, NAMES = "127.0.0.1", ["127.0.0.1", "localhost"]
SEARCHED_BY = "--images DIR to search by speech, --captions DIR by an image"
LARGEST_UPLOAD = 32_000_000  # bytes; of 16 bits, two channels and 48 kHz, 160 s


class Answers:
    """What is found, in HTML, a query at a time. Raises HTTPException for one that cannot be read."""

    def __init__(self, pair: TrainedPair, collections: Mapping[str, Collection], top: int) -> None:
        self.pair, self.collections, self.top, self._turn = pair, collections, top, Lock()

    def to_what_was_sent(self, kind: str, content: bytes, name: str) -> str:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "sent"
            path.write_bytes(content)
            try:
                if kind == "speech":
                    read_speech(path, LONGEST_SECONDS)  # of a longer one, no more than that is unpacked
                return self._answer(kind, path, name)
            except UserError as error:
                raise HTTPException(422, str(error).replace(str(path), name)) from None

    def to_an_example(self, kind: str, one: Example) -> str:
        try:
            return self._answer(kind, one.original(), one.name, one.text, one.right)
        except UserError as error:
            raise HTTPException(422, str(error)) from None

    def _answer(self, kind: str, query: Path | bytes, *shown: Any) -> str:
        with self._turn:
            answer = answer_of(self.pair, kind, self.collections[kind], query, self.top, *shown)
        return rendered("answer.html", answer=answer)


def app_of(pair: TrainedPair, collections: Mapping[str, Collection], top: int, name: str, secret: str) -> FastAPI:
    """The page over collections, each by the kind of query that searches it: `speech` or `image`."""
    app = FastAPI(openapi_url=None)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=NAMES)
    router, answers = APIRouter(prefix=f"/{secret}"), Answers(pair, collections, top)
    offers = {offer.kind: offer for offer in offers_of(pair, collections)}
    facts = {
        "offers": list(offers.values()),
        "pair": name,
        "embedded": is_of_embedded_corpus(pair),
        "endings": {"speech": SPEECH_ENDINGS, "image": IMAGE_ENDINGS},
    }

    def offered(kind: str, request: Request) -> Offer:
        refuse_other_sites(request)
        if kind not in offers:
            raise HTTPException(404, f"nothing here is searched by {kind}; start it with {SEARCHED_BY}")
        return offers[kind]

    @router.get("/")
    def page() -> Response:
        nonce = secrets.token_urlsafe(12)
        return HTMLResponse(rendered("search.html", nonce=nonce, **facts), headers=headers(nonce))

    @router.post("/{kind}")
    async def search(kind: str, request: Request) -> Response:
        offered(kind, request)
        content, sent = await upload(request), unquote(request.headers.get("x-name", "it"))
        return HTMLResponse(await run_in_threadpool(answers.to_what_was_sent, kind, content, sent))

    @router.post("/{kind}/{number:int}")
    def search_by_example(kind: str, number: int, request: Request) -> Response:
        examples = offered(kind, request).examples
        if number >= len(examples):
            raise HTTPException(404, f"there is no example {number}; load the page anew")
        return HTMLResponse(answers.to_an_example(kind, examples[number]))

    @app.exception_handler(HTTPException)
    async def told(_: Request, error: HTTPException) -> Response:
        return PlainTextResponse(error.detail, error.status_code)

    app.include_router(router)
    return app


def headers(nonce: str) -> dict[str, str]:
    """The page runs its own script alone, loads nothing from anywhere, and stands in no other page."""
    own = f"script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; connect-src 'self'; img-src data:; media-src data:"
    policy = f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def refuse_other_sites(request: Request) -> None:
    """Raises HTTPException for a request that a page of another address has made."""
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    if site != "same-origin" or (origin is not None and urlsplit(origin).netloc != request.headers["host"]):
        raise HTTPException(403, "another site's page may not search here")


async def upload(request: Request) -> bytes:
    """The request's body. Raises HTTPException for one of more than LARGEST_UPLOAD, of which no more is read."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST_UPLOAD:
            raise HTTPException(413, f"larger than {LARGEST_UPLOAD // 1_000_000} MB: send a shorter recording")
    if not content:
        raise HTTPException(422, "an empty file: send another")
    return bytes(content)


def listening(port: int) -> socket.socket:
    """A socket of this machine alone; port 0 is any free one. Raises UserError where it is taken."""
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((HOST, port))
        taken.listen()  # who reads the address may come before the server does
    except (OSError, OverflowError) as error:
        taken.close()
        problem = "no port" if isinstance(error, OverflowError) else error.strerror
        raise UserError(f"port {port}: {problem}; give another with --port N (0: any free one)") from None
    return taken


def serve(pair: TrainedPair, collections: Mapping[str, Collection], top: int, name: str, bound: socket.socket) -> None:
    """Until a Ctrl-C."""
    secret, port = secrets.token_urlsafe(12), bound.getsockname()[1]
    app = app_of(pair, collections, top, name, secret)
    print(f"open http://{HOST}:{port}/{secret}/ (a Ctrl-C ends it)")
    print(f"from another machine, first: ssh -L {port}:{HOST}:{port} {socket.gethostname()}", flush=True)
    config = uvicorn.Config(app, log_level="error", server_header=False, timeout_graceful_shutdown=3)
    try:
        uvicorn.Server(config).run(sockets=[bound])
    except KeyboardInterrupt:
        print("ended")
