"""The demo: a photograph, boxes on it, and what RoIAlign and RoIPool make of them.

`photograph` reads, `scene` computes, `picture` draws, and `command` is ``cyroialign demo``.
"""

from cyroialign.demo.command import run

__all__ = ["run"]
