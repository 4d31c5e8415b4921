"""Reading and writing the TPM's big-endian octets, strictly: nothing missing, nothing left over.

`TPM2B(x)` is a 2-octet size and then x (TPM 2.0 Part 2 10.4).
"""

from provisiond.errors import TpmStructureError


def sized(octets: bytes) -> bytes:
    """`TPM2B(octets)`; at most 65535 octets."""
    return len(octets).to_bytes(2, "big") + octets


class OctetReader:
    """Takes a TPM structure apart from the front.

    Args:
        octets: the whole structure.
        structure: its name in TPM 2.0 Part 2, for messages.
    """

    __slots__ = ("_octets", "_position", "_structure")

    def __init__(self, octets: bytes, structure: str) -> None:
        self._octets = octets
        self._position = 0
        self._structure = structure

    def refuse(self, reason: str) -> TpmStructureError:
        """The error to raise for this structure."""
        return TpmStructureError(f"{self._structure}: {reason}", clause=f"TPM 2.0 Part 2 {self._structure}")

    def take(self, size_bytes: int) -> bytes:
        """The next octets.

        Raises:
            TpmStructureError: fewer are left.
        """
        end = self._position + size_bytes
        if end > len(self._octets):
            raise self.refuse(f"{size_bytes} octets expected at offset {self._position} of {len(self._octets)}")
        taken = self._octets[self._position : end]
        self._position = end
        return taken

    def unsigned(self, size_bytes: int) -> int:
        """The next octets as an unsigned number; raises as `take`."""
        return int.from_bytes(self.take(size_bytes), "big")

    def sized(self, max_size_bytes: int) -> bytes:
        """The content of a TPM2B.

        Raises:
            TpmStructureError: it is longer than `max_size_bytes`, or than what is left.
        """
        size_bytes = self.unsigned(2)
        if size_bytes > max_size_bytes:
            raise self.refuse(f"a field of {size_bytes} octets where at most {max_size_bytes} fit")
        return self.take(size_bytes)

    def rest(self) -> bytes:
        """Everything that is left."""
        return self.take(len(self._octets) - self._position)

    def end(self) -> None:
        """Say that the structure ends here.

        Raises:
            TpmStructureError: it does not.
        """
        left = len(self._octets) - self._position
        if left:
            raise self.refuse(f"{left} octets left over")


def unwrap(octets: bytes, structure: str, max_size_bytes: int) -> bytes:
    """The content of a TPM2B that is all of `octets`.

    Raises:
        TpmStructureError: too short, too long, or larger than `max_size_bytes`.
    """
    reader = OctetReader(octets, structure)
    content = reader.sized(max_size_bytes)
    reader.end()
    return content
