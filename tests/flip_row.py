"""Turns every bit of a row proof, and of every field of the index that a proof rests on, and demands that
`contracts/verify_row.py` accepts none of them: `flip_row.py PROOF index.json`. Prints how many it tried."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "contracts"))
sys.dont_write_bytecode = True
import verify_row  # noqa: E402

known = {}
plain = verify_row.compress


def compress(chaining, block, *rest):
    """Most of what is hashed is the same from bit to bit."""
    asked = (tuple(chaining), block, *rest)
    if asked not in known:
        known[asked] = plain(chaining, block, *rest)
    return known[asked]


verify_row.compress = compress


def accepts(proof, index):
    try:
        verify_row.check(verify_row.read("the proof", proof), verify_row.read("the index", index))
        return True
    except (verify_row.No, ArithmeticError):
        return False


def flips(data, begin, end):
    for at in range(begin, end):
        for bit in range(8):
            yield at, bit, data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


proof, index = (Path(name).read_bytes() for name in sys.argv[1:3])
assert accepts(proof, index)
tried = 0
for at, bit, changed in flips(proof, 0, len(proof)):
    assert not accepts(changed, index), f"proof: bit {bit} of byte {at} is not looked at"
    tried += 1
whole = json.loads(index, parse_float=lambda t: f"\ue000{t}\ue001")
for name in ["fingerprint", "identity", "manifest_id", "rows", "rows_digest", "schema", "schema_version"]:
    field = verify_row.canonical({name: whole[name]})[1:-1].encode()
    # Keys are in order, so that what stands before a key is what the smaller keys say, an open brace and a comma.
    begin = len(verify_row.canonical({key: value for key, value in whole.items() if key < name}).encode())
    assert index[begin : begin + len(field)] == field
    for at, bit, changed in flips(index, begin, begin + len(field)):
        assert not accepts(proof, changed), f"{name} of the index: bit {bit} of byte {at} is not looked at"
        tried += 1
print(f"{tried} bits turned, none accepted")
