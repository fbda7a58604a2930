"""Counts in its state: {"by": 3} adds 3, an empty content adds 1, and the answer is {"count": SUM}.

Gives the same answers as `counter` and `counter-js`.
"""

import json

from componentize_py_types import Err
from wit_world.imports import state
from wit_world.imports.types import Cause, Failure, Performative, Reply, StateError_Unavailable

# The integers that every language can read from JSON.
LARGEST = 2**53 - 1


class Handler:
    def handle(self, message):
        by = read_step(message.content)
        count = increment("count", by)
        if abs(count) > LARGEST:
            # The failure takes the increment back.
            raise Err(Failure(Cause.REJECTED, "the sum would be too large", None))
        return Reply(
            performative=Performative.INFORM,
            content=json.dumps({"count": count}, separators=(",", ":")).encode(),
            content_type="application/json",
            ontology=None,
            reply_with=None,
            reply_by=None,
            headers=[],
        )


def read_step(content):
    if not content:
        return 1
    try:
        # A step holds no list and no second object; nested deeply enough, they would end Python's stack.
        nested = b"[" in content or content.count(b"{") > 1
        step = None if nested else json.loads(content.decode())
    except ValueError:
        step = None
    by = step.get("by", 1) if isinstance(step, dict) and step.keys() <= {"by"} else None
    is_number = isinstance(by, (int, float)) and not isinstance(by, bool)
    if not is_number or not -LARGEST <= by <= LARGEST or by != int(by):
        raise Err(Failure(Cause.REJECTED, 'the content must be empty or {"by": INTEGER}', None))
    return int(by)


def increment(key, by):
    try:
        return state.increment(key, by)
    except Err as error:
        cause = Cause.UNAVAILABLE if isinstance(error.value, StateError_Unavailable) else Cause.FAULT
        raise Err(Failure(cause, f"state does not count: {error.value}", None))
