"""
Ways in which a simulated worker can misbehave on demand, and which request gets which.

Pure: says what shall go wrong; others make it happen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import Factory, asdict, define, field, fields_dict, frozen
from attrs.validators import ge, gt, instance_of, optional

HEALTH_PATHS = ("/health", "/health_generate", "/liveness")
SCHEDULER_GONE = "Scheduler worker exited; restart the server."

_number: Any = instance_of((int, float))
ABOVE_ZERO: Any = gt(0)  # its stub takes no number inside optional()
_flag: Any = instance_of(bool)


@frozen(kw_only=True)
class Rule:
    """
    What goes wrong with some requests.

    Attributes:
        path: Prefix of the paths it applies to.
        method: The one method it applies to; None for all.
        health: Whether it applies to the health paths too, if *path* does not name one of them.
        times: How many more requests it applies to; None for no end.
        delay: Seconds to wait before the request is looked at.
        busy: Keep the GPU at something else for so many seconds before the work.
        status: Answer with this status instead of doing the work.
        body: Body of that answer; an object is sent as JSON.
        first_byte: Seconds to wait after the work, before the first byte of the answer.
        cut_after: Abort the connection after so many bytes of the body.
        drip: Send the body at so many bytes per second.
        hang: Never answer, instead of doing the work.
        drop: Abort the connection without an answer, instead of doing the work.
        exit: End the worker at once, instead of doing the work.
        dead: Let the GPU process be gone before the work.
        work: Do the work first, and then what would stand in its place.
    """

    path: str = field(default="/", validator=instance_of(str))
    method: str | None = field(default=None, validator=optional(instance_of(str)))
    health: bool = field(default=False, validator=_flag)
    times: int | None = field(default=None, validator=optional([instance_of(int), ge(1)]))
    delay: float = field(default=0.0, validator=[_number, ge(0)])
    busy: float = field(default=0.0, validator=[_number, ge(0)])
    status: int | None = field(default=None, validator=optional([instance_of(int), ge(200)]))
    body: Any = None
    first_byte: float = field(default=0.0, validator=[_number, ge(0)])
    cut_after: int | None = field(default=None, validator=optional([instance_of(int), ge(0)]))
    drip: float | None = field(default=None, validator=optional([_number, ABOVE_ZERO]))
    hang: bool = field(default=False, validator=_flag)
    drop: bool = field(default=False, validator=_flag)
    exit: bool = field(default=False, validator=_flag)
    dead: bool = field(default=False, validator=_flag)
    work: bool = field(default=False, validator=_flag)

    @property
    def instead(self) -> bool:
        """Whether the work is not done."""
        return not self.work and (self.status is not None or self.hang or self.drop or self.exit)

    def applies(self, method: str, path: str) -> bool:
        if self.method not in (None, method) or not path.startswith(self.path):
            return False
        return self.health or path not in HEALTH_PATHS or self.path in HEALTH_PATHS


NO_FAULT = Rule()


@define
class _Active:
    rule: Rule
    left: int | None


@frozen(kw_only=True)
class Orders:
    """
    One checked fault document. None leaves a matter as it is.

    Attributes:
        dead: Whether the GPU processes are gone.
        fail_generations: How many of the next generations fail at their end; True for all.
        slow: Factor on every duration.
        rollout_bytes: Size of the sample tensor in a rollout answer (bytes).
        refuse_for: Seconds during which the port is closed and idle connections are dropped.
    """

    rules: tuple[Rule, ...] = ()
    dead: bool | None = field(default=None, validator=optional(_flag))
    fail_generations: int | bool | None = field(
        default=None, validator=optional([instance_of(int), ge(0)])
    )
    slow: float | None = field(default=None, validator=optional([_number, ABOVE_ZERO]))
    rollout_bytes: int | None = field(default=None, validator=optional([instance_of(int), ge(0)]))
    refuse_for: float | None = field(default=None, validator=optional([_number, ge(0)]))


def parse_orders(document: object) -> Orders:
    """
    The orders in a fault document.

    Raises:
        ValueError: names the field that is unknown or has a wrong value.
    """
    given = _known(document, Orders, "a fault document")
    rules = given.pop("rules", [])
    if not isinstance(rules, list):
        raise ValueError("rules must be a list")
    orders: Orders = _built(Orders, {**given, "rules": tuple(map(_parse_rule, rules))})
    return orders


def _parse_rule(document: object) -> Rule:
    rule: Rule = _built(Rule, _known(document, Rule, "a rule"))
    return rule


def _built(kind: type[Any], given: Mapping[str, Any]) -> Any:
    try:
        return kind(**given)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error.args[0])) from error


def _known(document: object, kind: type[Any], what: str) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"{what} must be an object")
    unknown = [name for name in document if name not in fields_dict(kind)]
    if unknown:
        raise ValueError(f"unknown fields in {what}: {', '.join(map(str, unknown))}")
    return document.copy()


@define
class Faults:
    """
    The faults in force.
    """

    dead: str | None = None
    slow: float = 1.0
    rollout_bytes: int | None = None
    fail_generations: int | bool = 0
    _rules: list[_Active] = Factory(list)

    def obey(self, orders: Orders) -> None:
        """
        Add the rules of *orders* to those in force, and take its other fields.
        """
        self._rules += [_Active(rule, rule.times) for rule in orders.rules]
        if orders.dead is not None:
            self.dead = SCHEDULER_GONE if orders.dead else None
        if orders.slow is not None:
            self.slow = orders.slow
        if orders.rollout_bytes is not None:
            self.rollout_bytes = orders.rollout_bytes
        if orders.fail_generations is not None:
            self.fail_generations = orders.fail_generations

    def clear(self) -> None:
        self.dead, self.slow, self.rollout_bytes, self.fail_generations = None, 1.0, None, 0
        self._rules.clear()

    def take(self, method: str, path: str) -> Rule:
        """
        The first rule for this request, which counts as one use of it.
        """
        for active in self._rules:
            if active.rule.applies(method, path):
                if active.left is not None:
                    active.left -= 1
                    self._rules = [one for one in self._rules if one.left != 0]
                return active.rule
        return NO_FAULT

    def take_failure(self) -> bool:
        """
        Whether the generation that begins now shall fail.
        """
        if self.fail_generations is True:
            return True
        fails = self.fail_generations > 0
        self.fail_generations -= fails
        return fails

    def as_json(self) -> dict[str, object]:
        return {
            "rules": [{**asdict(one.rule), "times": one.left} for one in self._rules],
            "dead": self.dead is not None,
            "fail_generations": self.fail_generations,
            "slow": self.slow,
            "rollout_bytes": self.rollout_bytes,
        }
