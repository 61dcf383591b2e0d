"""A chat that is being prepared: work of the model's thread between two tokens of others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from icae.serve.chats import Chat
from icae.serve.jobs import Progressing


@dataclass(frozen=True, kw_only=True, eq=False)
class Preparing:
    """A chat whose long messages are being compressed, a slice a step.

    Attributes:
        steps: What is done; nothing of it is kept where it does not come to its end.
        ended: Called in the end, with whether the chat is ready: it failed, or nobody waits, else.
    """

    chat: Chat
    steps: Progressing[None]
    ended: Callable[[bool], None]
    begun = True

    @property
    def owner(self) -> str:
        """Whose chat it is."""
        return self.chat.owner

    def step(self) -> bool:
        """Do some of the work; gives whether there is more to do."""
        try:
            if not self.chat.unwanted:
                next(self.steps)
                return True
            self.steps.close()
            self.chat.give_up()
            self.ended(False)
        except StopIteration:
            self.ended(True)
        except Exception as error:
            self.fail(error)
        return False

    def fail(self, error: Exception) -> None:
        """Give the error in place of an answer."""
        self.steps.close()
        if self.chat.future.set_running_or_notify_cancel():
            self.chat.fail(error)
        self.ended(False)
