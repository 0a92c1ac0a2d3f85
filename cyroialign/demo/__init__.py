"""The demo: a photograph, boxes on it, and the crops of RoIAlign and RoIPool.

`photograph` reads, `scene` computes, `picture` draws, and `command` is ``cyroialign demo``.
"""

from cyroialign.demo.command import run

__all__ = ["run"]
