"""An evaluation on disk: a file of records per block, and one file of all once they are done.

Records go to disk as episodes end, one JSON object a line, into a file whose name ends in `.part`
until its block is done; a checksum is the last line then. A stopped evaluation goes on with the
blocks that are not done, so a kill costs the blocks that were under way and changes nothing that is
written in the end. A block whose file was damaged is not done.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from relic.evaluation.controls import CONTROLS, ContextControl
from relic.evaluation.protocol import Protocol
from relic.files import (
    Seal,
    complete_lines,
    make_directory,
    parse_json,
    publish,
    read_sealed,
    write_json,
    write_text,
)
from relic.policy.loading import DESCRIPTION_FILE
from relic.schema import ConfigError, leaves, to_plain

Record = dict[str, Any]
"""What is noted of one episode: what the environment says of it, and which one it was."""
FORMAT = 1
IDENTITY_FILE = "evaluation.json"
RECORDS_FILES = {
    ContextControl.KEPT: "records.jsonl",
    **{control: f"records_{control.value}.jsonl" for control in CONTROLS},
}


@dataclass(frozen=True, slots=True)
class Job:
    """A block to be evaluated, and what the policy may remember in it."""

    control: ContextControl
    block: int


def count_crashed(records: Iterable[Record]) -> int:
    """Return how many episodes ended by a crash of the simulator or a broken number."""
    return sum(bool(record.get("crashed")) for record in records)


def identity(
    policy: str, protocol: Protocol, threads: int, *, device: str = "cpu"
) -> dict[str, Any]:
    """Return what decides the records: results of one evaluation agree in all of it.

    Args:
        policy: Tells who acts, such as `policy_digest`.
        protocol: With all options filled in.
        threads: Of each worker.
        device: Where the policy acts.
    """
    return {
        "format": FORMAT,
        "policy": policy,
        "protocol": to_plain(protocol),
        "threads": threads,
        "device": device,
    }


def policy_digest(checkpoint: Path) -> str:
    """Return twelve hexadecimal digits that change with a policy's configuration or weights."""
    description = parse_json((checkpoint / DESCRIPTION_FILE).read_bytes())
    # Not what else is noted there, such as steps: the same weights are the same policy.
    weights = json.dumps([description["config"], description["checksums"]], sort_keys=True)
    return hashlib.sha256(weights.encode()).hexdigest()[:12]


class RecordStore:
    """The directory of one evaluation."""

    def __init__(self, directory: Path, identity: dict[str, Any]) -> None:
        """Open or begin it.

        Args:
            directory: Made if needed.
            identity: Of the evaluation, see `identity`.

        Raises:
            ConfigError: If it cannot be made, or holds another evaluation.
        """
        self.directory = directory
        self._identity = json.dumps(identity, sort_keys=True)
        self._blocks = directory / "blocks"
        make_directory(directory, key="out")
        self._blocks.mkdir(exist_ok=True)
        file = directory / IDENTITY_FILE
        if file.exists():
            _check_same(file, identity)
        else:
            write_json(file, identity)

    def is_done(self, job: Job) -> bool:
        """Say whether a block's records are complete and as they were written."""
        if self._read(job) is not None:
            return True
        if self._path(job).exists():
            logging.getLogger(__name__).warning(
                "%s is damaged; the block is evaluated again.", self._path(job)
            )
        return False

    def write(self, job: Job, records: Iterable[Record]) -> Iterator[Record]:
        """Pass the records of a block on, and put each on disk as it comes."""
        path = self._path(job)
        part = path.with_name(path.name + ".part")
        seal = Seal(self._what(job))
        with part.open("w") as file:
            for record in records:
                file.write(seal.add(_line(record)))
                # A kill then costs the line under way at most, and the file can be watched.
                file.flush()
                yield record
            file.write(seal.line)
        publish(part, path)

    def merge(self, control: ContextControl, num_blocks: int) -> list[Record]:
        """Write the records of all blocks, in order, into one file and return them.

        Raises:
            ConfigError: If a block was damaged after it was evaluated.
        """
        # By block, not as they were done: who did which, and when, leaves no trace.
        jobs = [Job(control, block) for block in range(num_blocks)]
        records = in_order(json.loads(line) for job in jobs for line in self._lines(job))
        write_text(self.directory / RECORDS_FILES[control], "".join(map(_line, records)))
        return records

    def _lines(self, job: Job) -> list[str]:
        lines = self._read(job)
        if lines is None:
            raise ConfigError(
                f"{self._path(job)}: must hold the block that was just evaluated, got a damaged "
                "file. Check the disk and run the same command again."
            )
        return lines

    def _read(self, job: Job) -> list[str] | None:
        return read_sealed(self._path(job), self._what(job))

    def _what(self, job: Job) -> str:
        return f"{self._path(job).name} of {self._identity}"

    def _path(self, job: Job) -> Path:
        return self._blocks / f"{job.control.value}-{job.block:05d}.jsonl"


def read_records(path: Path) -> list[Record]:
    """Read a file of records."""
    return list(complete_lines(path))


def in_order(records: Iterable[Record]) -> list[Record]:
    """Sort records by repeat, trial and episode."""
    return sorted(records, key=lambda r: (r["repeat"], r["trial"], r["episode"]))


def _line(record: Record) -> str:
    # Sorted, so that equal records are equal bytes; strict, as NaN is no JSON.
    return json.dumps(record, sort_keys=True, allow_nan=False) + "\n"


def _check_same(file: Path, identity: dict[str, Any]) -> None:
    try:
        found = leaves(parse_json(file.read_bytes()))
    except ValueError as error:
        raise ConfigError(
            f"{file}: must say what was evaluated, got a damaged file ({error}). "
            "Choose another out."
        ) from None
    # Through JSON as the file went, which makes lists of tuples.
    wanted = leaves(json.loads(json.dumps(identity)))
    for key in sorted({*found, *wanted}):
        if found.get(key) != wanted.get(key):
            raise ConfigError(
                f"out: {file.parent} holds another evaluation: {key} is {found.get(key)!r} there "
                f"and {wanted.get(key)!r} here. Choose another out."
            )
