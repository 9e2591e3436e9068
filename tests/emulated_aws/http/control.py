"""What a test may change in the emulated account, or ask of it, beside AWS's own calls."""

from collections.abc import Callable
from typing import Any

from .account import Account
from .errors import AwsError

Told = dict[str, Any]


def answer(account: Account, what: str, fields: Told) -> Told:
    """
    Raises:
        AwsError: there is no such control.
    """
    if what not in _CONTROLS:
        raise AwsError("UnknownControl", what, 404)
    return _CONTROLS[what](account, fields) or {}


def _requests(account: Account, fields: Told) -> Told:
    return {"requests": account.requests()}


def _hold(account: Account, fields: Told) -> None:
    account.held, account.at_once = True, fields.get("at_once", False)


def _change(account: Account, fields: Told) -> None:
    account.store.change(account.store.get(fields["kind"], fields["name"]), **fields["members"])


def _deny(account: Account, fields: Told) -> None:
    account.denied.add((fields["service"], fields["operation"]))


def _interrupt(account: Account, fields: Told) -> None:
    account.store.get("TrainingJob", fields["name"])
    account.interrupted.add(fields["name"])


def _quota(account: Account, fields: Told) -> None:
    account.quotas[fields["name"]] = fields["value"]


def _price(account: Account, fields: Told) -> None:
    account.prices[fields["instance_type"], fields["component"]] = fields["usd"]


def _close(account: Account, fields: Told) -> None:
    account.close()


_CONTROLS: dict[str, Callable[[Account, Told], Told | None]] = {
    "requests": _requests,
    "hold": _hold,
    "change": _change,
    "deny": _deny,
    "interrupt": _interrupt,
    "quota": _quota,
    "price": _price,
    "close": _close,
}
