"""Answers each message with its own content."""

from wit_world.imports.types import Performative, Reply


class Handler:
    def handle(self, message):
        return Reply(
            performative=Performative.INFORM,
            content=message.content,
            content_type=message.content_type,
            ontology=None,
            reply_with=None,
            reply_by=None,
            headers=[],
        )
