"""The long memory: everything the story has remembered, in ChromaDB, recalled by the plan.

The index is a cache and nothing more: the story's own log can rebuild it at any time.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from recurrent_writer.embedding import NAME, Rarity, embed, embed_all
from recurrent_writer.errors import WriterError

_BATCH = 500
# An approximate index with the defaults loses half of the neighbours; with these values 99 % are found.
_HNSW: Any = {"space": "cosine", "ef_search": 400, "ef_construction": 200, "max_neighbors": 32}

_SPARE = 32  # memories asked for beyond those wanted, as some may be equally near
_STRANGE = 1 - 1e-6  # the distance from which on two texts have no word in common


@dataclass(frozen=True)
class Memory:
    """Something remembered: a sentence, and the step (counted from 1) whose paragraph it is about."""

    id: str
    step: int
    text: str


class LongMemory:
    """The index of one story. Opening it makes it whole: what is missing, foreign or broken is rebuilt from `memories`.

    Args:
        folder: where the index lies; one process at a time (the story's lock sees to that).
        memories: everything that the index has to hold.
    """

    def __init__(self, folder: Path, memories: Sequence[Memory]) -> None:
        self._folder = folder
        self.rebuilt = False
        """True if the index was made anew when it was opened."""
        self._rarity = Rarity()
        self._memories: list[Memory] = []  # in the order in which they were made
        self._places: dict[str, int] = {}
        self._count(memories)
        try:
            self._collection = self._open()
            fits = self._holds(memories)
        except Exception:  # a broken index raises errors of many libraries, and all of them mean: make it anew
            fits = False
        if not fits:
            self._rebuild(memories)

    def add(self, memories: Sequence[Memory]) -> None:
        """Remember. Adding the same memory again changes nothing. Raises `WriterError` if the index cannot be written."""
        from chromadb.errors import ChromaError

        for at in range(0, len(memories), _BATCH):
            batch = memories[at : at + _BATCH]
            try:
                self._collection.upsert(
                    ids=[memory.id for memory in batch],
                    embeddings=embed_all(memory.text for memory in batch),
                    documents=[memory.text for memory in batch],
                    metadatas=[{"step": memory.step} for memory in batch],
                )
            except ChromaError as fault:
                raise WriterError(
                    f"The index in {self._folder} cannot be written ({fault}): make room on the disk and go on with the story."
                ) from fault
            self._count(batch)

    def recall(self, query: str, count: int, before_step: int, known: Iterable[str] = ()) -> list[Memory]:
        """The memories nearest to `query`, best first: of steps before `before_step`, none whose text is in `known`.

        Of those that are equally near the oldest comes first, and so do those that have no word in common with the query, behind the
        others: what is recalled must not depend on the way an index was built.
        """
        known = set(known)
        found = self._collection.query(
            query_embeddings=[embed(query, self._rarity)],
            n_results=count + len(known) + _SPARE,
            where={"step": {"$lt": before_step}},
            include=["distances"],
        )
        near = sorted(
            (round(distance, 6), self._places[id_])
            for id_, distance in zip(found["ids"][0], found["distances"][0], strict=True)
            if distance < _STRANGE and id_ in self._places
        )
        recalled: dict[str, Memory] = {}
        for memory in chain((self._memories[place] for _, place in near), self._memories):
            if len(recalled) == count:
                break
            if memory.step < before_step and memory.text not in known:
                recalled.setdefault(memory.text, memory)
        return list(recalled.values())

    def _count(self, memories: Iterable[Memory]) -> None:
        for memory in memories:
            if memory.id not in self._places:
                self._places[memory.id] = len(self._memories)
                self._memories.append(memory)
                self._rarity.add(memory.text)

    def _open(self) -> Any:
        os.environ.setdefault("ANONYMIZED_TELEMETRY", "False")
        import chromadb

        self._folder.mkdir(parents=True, exist_ok=True)
        from chromadb.config import Settings

        settings = Settings(anonymized_telemetry=False)
        client = chromadb.PersistentClient(path=str(self._folder), settings=settings)
        return client.get_or_create_collection(NAME, embedding_function=None, configuration={"hnsw": _HNSW})

    def _holds(self, memories: Sequence[Memory]) -> bool:
        """True if the index holds exactly these memories, as far as counting and the newest of them tell."""
        if self._collection.count() != len(memories):
            return False
        newest = [memory.id for memory in memories[-1:]]
        return not newest or self._collection.get(ids=newest)["documents"] == [memories[-1].text]

    def _rebuild(self, memories: Sequence[Memory]) -> None:
        if self._folder.is_dir():
            from chromadb.api.shared_system_client import SharedSystemClient

            SharedSystemClient.clear_system_cache()
            shutil.rmtree(self._folder)
        else:
            self._folder.unlink(missing_ok=True)
        self._collection = self._open()
        self.add(memories)
        self.rebuilt = bool(memories)
