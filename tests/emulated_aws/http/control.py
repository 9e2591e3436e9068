"""What a test may change in the emulated account, or ask of it, beside AWS's own calls."""

from collections.abc import Callable
from typing import Any

from .account import Account
from .errors import AwsError

Told = dict[str, Any]


def answer(account: Account, what: str, told: Told) -> Told:
    """
    Raises:
        AwsError: there is no such control.
    """
    if what not in _CONTROLS:
        raise AwsError("UnknownControl", what, 404)
    return _CONTROLS[what](account, told) or {}


def _requests(account: Account, told: Told) -> Told:
    return {"requests": account.requests()}


def _hold(account: Account, told: Told) -> None:
    account.held = True


def _change(account: Account, told: Told) -> None:
    account.store.change(account.store.get(told["kind"], told["name"]), **told["members"])


def _deny(account: Account, told: Told) -> None:
    account.denied.add((told["service"], told["operation"]))


def _interrupt(account: Account, told: Told) -> None:
    account.store.get("TrainingJob", told["name"])
    account.interrupted.add(told["name"])


def _quota(account: Account, told: Told) -> None:
    account.quotas[told["name"]] = told["value"]


def _price(account: Account, told: Told) -> None:
    account.prices[told["instance_type"], told["component"]] = told["usd"]


def _close(account: Account, told: Told) -> None:
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
