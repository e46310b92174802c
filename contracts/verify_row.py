"""Checks a proof that `ofs prove M --row EVENT_ID -o PROOF` wrote against the index of the data set, offline and with
nothing but Python's own library: `verify_row.py PROOF index.json`. Prints the row and exits 0, or says why not and exits 1.

What it checks: the index is the canonical document of an identity, and the name of the data set follows from that
identity; the proof is canonical too, so that no other bytes say the same; the row, decoded by the index's schema, is
that of the event; and the row leads, by its number and its siblings, to the `rows_digest` of the index. That the
index itself is the published one is for the ledger to say (`ofs verify`).
"""

import datetime
import decimal
import json
import re
import struct
import sys


class No(Exception):
    """Why a proof does not hold."""


def need(holds, why):
    if not holds:
        raise No(why)


# BLAKE3, from its specification: unkeyed, 32 bytes of output.
IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
ORDER = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
QUARTERS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15), (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, PARENT, ROOT = 1, 2, 4, 8
WORD = 0xFFFFFFFF


def compress(chaining, block, counter, length, flags):
    state = list(chaining) + list(IV[:4]) + [counter & WORD, counter >> 32, length, flags]
    words = list(struct.unpack("<16I", block.ljust(64, b"\0")))
    for _ in range(7):
        for at, (a, b, c, d) in enumerate(QUARTERS):
            for half, (first, second) in enumerate(((16, 12), (8, 7))):
                state[a] = (state[a] + state[b] + words[2 * at + half]) & WORD
                turned = state[d] ^ state[a]
                state[d] = (turned >> first | turned << (32 - first)) & WORD
                state[c] = (state[c] + state[d]) & WORD
                turned = state[b] ^ state[c]
                state[b] = (turned >> second | turned << (32 - second)) & WORD
        words = [words[i] for i in ORDER]
    return [state[i] ^ state[i + 8] for i in range(8)]


def chunk(data, counter, root):
    chaining = list(IV)
    blocks = [data[i : i + 64] for i in range(0, len(data), 64)] or [b""]
    for at, block in enumerate(blocks):
        last = at == len(blocks) - 1
        flags = (CHUNK_START if at == 0 else 0) | ((CHUNK_END | root) if last else 0)
        chaining = compress(chaining, block, counter, len(block), flags)
    return chaining


def subtree(data, counter, root):
    if len(data) <= 1024:
        return chunk(data, counter, root)
    left = 1024
    while left * 2 < len(data):
        left *= 2
    both = subtree(data[:left], counter, 0) + subtree(data[left:], counter + left // 1024, 0)
    return compress(list(IV), struct.pack("<16I", *both), 0, 64, PARENT | root)


def blake3(data):
    return struct.pack("<8I", *subtree(data, 0, ROOT))


def canonical(value):
    """Keys in order, compact, number tokens as they were written."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return re.sub('"\ue000(.*?)\ue001"', r"\1", text)


def load(path):
    with open(path, "rb") as file:
        return file.read()


def read(name, data):
    """A canonical document: parsed, and the only spelling of what it says."""

    def pairs(items):
        need(len({key for key, _ in items}) == len(items), f"{name}: a key stands twice")
        return dict(items)

    def constant(token):
        raise No(f"{name}: {token} is no number")

    try:
        text = data.decode("utf-8")
        value = json.loads(text, object_pairs_hook=pairs, parse_float=lambda t: f"\ue000{t}\ue001", parse_constant=constant)
        again = canonical(value) + "\n"
    except (ValueError, RecursionError) as error:
        raise No(f"{name} is no JSON document: {error}") from error
    need(again == text, f"{name} is not in canonical form")
    need(isinstance(value, dict), f"{name} is no object")
    return value


def is_hash(text):
    return isinstance(text, str) and re.fullmatch("[0-9a-f]{64}", text) is not None


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def digest_of(value):
    return blake3(canonical(value).encode()).hex()


def check_index(index):
    """The name of a data set is a function of its identity."""
    need(index.get("schema_version") == "ofs.dataset_index.v1", "the index is of another version")
    need(isinstance(index.get("identity"), dict), "the index has no identity")
    fingerprint = digest_of({"recipe": "ofs.dataset_fingerprint.v2", "payload": index["identity"]})
    need(index.get("fingerprint") == fingerprint, "the fingerprint of the index is not that of its identity")
    name = digest_of({"recipe": "ofs.dataset_manifest_id.v2", "dataset_fingerprint": fingerprint})
    need(index.get("manifest_id") == "dm_" + name[:32], "the id in the index is not that of its fingerprint")
    need(is_hash(index.get("rows_digest")) and is_count(index.get("rows")), "the index has no rows")
    need(isinstance(index.get("schema"), list) and index["schema"], "the index has no schema")


TAGS = {"utf8": 1, "int64": 2, "int32": 3, "timestamp_us_utc": 4, "float64": 5, "bool": 6}


def columns(schema):
    """Name, tag, scale and whether null is lawful, of every column."""
    found = []
    for column in schema:
        need(isinstance(column, dict) and set(column) == {"name", "nullable", "type"}, "a column of the index is none")
        need(isinstance(column["name"], str) and isinstance(column["nullable"], bool), "a column of the index is none")
        kind = column["type"]
        exact = re.fullmatch(r"decimal\(([1-9]\d?),(0|[1-9]\d?)\)", kind) if isinstance(kind, str) else None
        need(exact or kind in TAGS, f"no column has the type {kind!r}")
        scale = int(exact.group(2)) if exact else None
        found.append((column["name"], 7 if exact else TAGS[kind], scale, column["nullable"]))
    return found


def decode(row, schema):
    """The values of a row, each in its one encoding, and nothing after them."""
    values, at = {}, 0

    def take(size):
        nonlocal at
        need(at + size <= len(row), "the row ends inside a value")
        at += size
        return row[at - size : at]

    for name, tag, scale, nullable in schema:
        found, valid = take(2)
        need(found == tag and valid in (0, 1), f"{name}: not a value of its type")
        need(valid == 1 or nullable, f"{name} is null")
        if valid == 0:
            values[name] = None
        elif tag == 1:
            try:
                values[name] = take(int.from_bytes(take(4), "little")).decode("utf-8")
            except UnicodeDecodeError as error:
                raise No(f"{name} is no text") from error
        elif tag in (2, 3):
            values[name] = int.from_bytes(take(8 if tag == 2 else 4), "little", signed=True)
        elif tag == 4:
            moment = datetime.timedelta(microseconds=int.from_bytes(take(8), "little", signed=True))
            values[name] = (datetime.datetime(1970, 1, 1) + moment).isoformat(timespec="microseconds") + "Z"
        elif tag == 5:
            values[name] = struct.unpack("<d", take(8))[0]
        elif tag == 6:
            bit = take(1)[0]
            need(bit in (0, 1), f"{name} is neither true nor false")
            values[name] = bit == 1
        else:
            number = int.from_bytes(take(16), "little", signed=True)
            need(int.from_bytes(take(1), "little", signed=True) == scale, f"{name} has another scale")
            values[name] = str(decimal.Decimal(number).scaleb(-scale, decimal.Context(prec=60)))
    need(at == len(row), "something stands after the row")
    return values


def climb(leaf, number, rows, path):
    """The top of the tree from a leaf: a list is split at the largest power of two below its length."""
    turns = []
    while rows > 1:
        split = 1
        while split * 2 < rows:
            split *= 2
        turns.append(number < split)
        number, rows = (number, split) if number < split else (number - split, rows - split)
    need(len(turns) == len(path), "the path has another length than the place of the row asks for")
    for left, sibling in zip(reversed(turns), path):
        leaf = blake3(b"\x01" + leaf + sibling) if left else blake3(b"\x01" + sibling + leaf)
    return leaf


FIELDS = {"schema_version", "manifest_id", "event_id", "row_number", "rows", "rows_digest", "row", "path"}


def check(proof, index):
    """The decoded row, where everything holds."""
    need(set(proof) == FIELDS and proof["schema_version"] == "ofs.row_proof.v1", "this is no proof of a row")
    check_index(index)
    for key in ("manifest_id", "rows", "rows_digest"):
        need(type(proof[key]) is type(index[key]) and proof[key] == index[key], f"proof and index differ in {key}")
    number, rows, path = proof["row_number"], proof["rows"], proof["path"]
    need(is_count(number) and number < rows, "the row's number is beyond the rows")
    need(isinstance(path, list) and all(is_hash(step) for step in path), "the path is none")
    need(isinstance(proof["row"], str) and re.fullmatch("([0-9a-f]{2})+", proof["row"]), "the row is none")
    row = bytes.fromhex(proof["row"])
    schema = columns(index["schema"])
    values = decode(row, schema)
    need(values.get("event_id") == proof["event_id"], "the row is that of another event")
    top = climb(blake3(b"\x00" + row), number, rows, [bytes.fromhex(step) for step in path])
    names = blake3(canonical([[name, tag, scale] for name, tag, scale, _ in schema]).encode())
    root = blake3(b"\x02" + names + rows.to_bytes(8, "little") + top)
    need(root.hex() == index["rows_digest"], "the row does not lead to the rows_digest of the index")
    return values


def main(arguments):
    if len(arguments) != 2:
        print("usage: verify_row.py PROOF index.json", file=sys.stderr)
        return 2
    try:
        proof, index = read("the proof", load(arguments[0])), read("the index", load(arguments[1]))
        values = check(proof, index)
    except (No, OSError, ArithmeticError) as why:
        print(f"NOT PROVED: {why}")
        return 1
    print(f"PROVED: row {proof['row_number']} of {proof['rows']} of {proof['manifest_id']}")
    for name, value in values.items():
        print(f"  {name} = {json.dumps(value)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
