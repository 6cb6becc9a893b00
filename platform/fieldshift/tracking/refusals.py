"""Errors of a store: temporary ones, and permanent ones that the user has to resolve."""

from __future__ import annotations

import errno
import http.client
import json
import re

from fieldshift.errors import one_line

NEVER = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
LONGEST_CHAIN = 8


def is_refused(error: Exception) -> bool:
    """Whether a message can never be sent: the store rejected it permanently, or a value in it cannot be encoded.

    MLflow reports the latter as it is, or as the cause of an error of its own. The context of an error does not count, as a
    run is also closed while another error is handled; nor do values that could not be read in an answer.
    """
    if getattr(error, "error_code", "") in NEVER:
        return True
    causes = _chain(error, with_context=False)
    is_of_the_message = any(isinstance(each, (ValueError, TypeError, OverflowError)) for each in causes)
    return is_of_the_message and not any(
        isinstance(each, (OSError, http.client.HTTPException, json.JSONDecodeError)) for each in causes
    )


def failure(error: Exception) -> str:
    """The failure of a store to take a message, and its cause, in a few words."""
    text = one_line(error)
    if "disk is full" in text or getattr(error, "errno", None) == errno.ENOSPC:
        return "has no space left on its disk"
    fails = "takes no files" if isinstance(error, OSError) and error.filename is not None else "does not answer"
    return f"{fails} ({text.partition(' [SQL:')[0][:200]})"


def lasting_reason(error: BaseException, uri: str) -> str | None:
    """The permanent problem of a store, as the end of a sentence with a remedy; None if the error is temporary."""
    text = _whole(error)
    if isinstance(error, ModuleNotFoundError) or "No module named" in text:
        missing = re.search(r"No module named '(\w+)", text)
        name = missing.group(1) if missing else "its driver"
        extra = "'fieldshift[postgresql]'" if name.startswith("psycopg") else name
        return f"needs the package {name}, which is not installed: pip install {extra}"
    if "out-of-date database schema" in text or "Can't locate revision" in text:
        return (
            "has the schema of another version of MLflow: migrate it with `mlflow db upgrade`, or install that version"
        )
    if "Invalid Host header" in text:
        return "refuses the host name of its address: start it with --allowed-hosts, or give an address that it allows"
    if uri.startswith("http") and _status(error, text) == 403:
        return (
            "does not permit this: ask for the right to write to the experiment, or set MLFLOW_TRACKING_USERNAME and"
            " MLFLOW_TRACKING_PASSWORD of a user who has it"
        )
    if _status(error, text) in {401, 403} or re.search(
        r"authentication failed|no password supplied", text, re.IGNORECASE
    ):
        way = (
            "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            if uri.startswith("http")
            else "set the database's own password file or variable (~/.pgpass, PGPASSWORD)"
        )
        return f"refused the log-in: {way}"
    if uri.startswith("http") and (_status(error, text) in {404, 405, 501} or "valid JSON" in text):
        return "answers, but is not an MLflow server: give the address at which MLflow's pages open"
    if re.search(r"Could not parse SQLAlchemy URL|database \S+ does not exist|role \S+ does not exist", text):
        return f"cannot be opened ({one_line(error, 160)}): correct the address"
    if "unable to open database file" in text or "file is not a database" in text or "readonly database" in text:
        return f"cannot be opened ({_cause(text)}): give a file that can be written"
    return None


def _status(error: BaseException, text: str) -> int | None:
    """The HTTP status that an error reports; None if there is none."""
    named = re.search(r"error code (\d{3})|status code (\d{3})|(\d{3}) != 200", text)
    if named:
        return int(next(filter(None, named.groups())))
    return {"UNAUTHENTICATED": 401, "PERMISSION_DENIED": 403, "ENDPOINT_NOT_FOUND": 404}.get(
        getattr(error, "error_code", "")
    )


def _whole(error: BaseException) -> str:
    """The text of an error and of its causes."""
    return " | ".join(f"{type(each).__name__}: {each}" for each in _chain(error, with_context=True))


def _chain(error: BaseException, *, with_context: bool) -> list[BaseException]:
    """An error and its causes, each before its own; also errors that were handled meanwhile, if `with_context`."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and len(chain) < LONGEST_CHAIN:
        chain.append(each)
        each = each.__cause__ or (each.__context__ if with_context else None)
    return chain


def _cause(text: str) -> str:
    return next(
        part for part in ("unable to open database file", "file is not a database", "readonly database") if part in text
    )
