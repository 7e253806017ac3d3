// Verifies a published Sallyport log: a second implementation, by docs/audit.md and crates/audit-store/FORMAT.md. It shares
// nothing with the gateway's own code.
//
//   node verify.mjs DIR [--key KEY]… [--earlier FILE]…
//
// Exit status 0: it holds, and one line of JSON says what was read. 1: it does not; one line for each finding. 2: wrong usage.
import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";

const WIDTH = 256;
const KINDS = {
  1: ["gateway_started", "version text", "host text"],
  2: ["gateway_stopped", "reason text"],
  3: ["activated", "what text", "digest text", "previous text?", "difference [text]", "author text?"],
  4: ["reload_refused", "what text", "error text"],
  5: ["login_failed", "source text", "protocol text", "label text", "connection text", "reason text"],
  6: ["session_started", "principal principal", "target target", "source text", "protocol text", "label text", "application text", "tls text?", "policy_version text", "policies [text]"],
  7: ["session_ended", "reason text", "requests number", "bytes_in number", "bytes_out number"],
  8: ["request", "request number", "kind number", "verdict number", "statement bytes", "parameters parameters", "facts facts", "policies [text]", "policy_version text", "reason text?"],
  9: ["outcome", "request number", "status number", "code bytes?", "tag bytes?", "rows number", "bytes number", "duration_micros number", "columns_passed number", "columns_masked number", "columns_refused number", "masked_classes [text]"],
  10: ["approval", "request number", "step number", "by text?", "reason text?", "digest text"],
  11: ["administration", "by text", "action text", "object text", "details details"],
  12: ["log_read", "by text", "query text"],
  13: ["clock_jump", "micros number"],
  14: ["heartbeat"],
  15: ["log_key", "origin text", "key text", "previous text?", "endorsement text?", "by text"],
  16: ["destroyed", "rule text", "by text", "reason text?", "first number", "next number", "connection text?", "kinds [text]", "fields [text]", "contents number"],
};
const MESSAGES = {
  "[text]": { 1: "texts" },
  map: { 1: "text", 2: "text" },
  principal: { 1: "number", 2: "text", 3: "text", 4: "text?", 5: "text?", 6: "text?", 7: "texts", 8: "texts", 9: "maps", 10: "moment" },
  moment: { 1: "fixed" },
  target: { 1: "text", 2: "text", 3: "text", 4: "text", 5: "text?", 6: "maps" },
  parameters: { 1: "list parameter" },
  parameter: { 1: "bytes?", 2: "number", 3: "number" },
  facts: { 1: "list operation", 2: "texts", 3: "texts", 4: "maps" },
  operation: { 1: "text", 2: "number", 3: "texts", 4: "number" },
  details: { 1: "maps" },
  beside: { 1: "number", 2: "number", 3: "bytes" },
};
const strict = new TextDecoder("utf-8", { fatal: true });
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash("sha256")).digest();
const leafHash = (leaf) => sha256(Buffer.of(0), leaf);
const nodeHash = (left, right) => sha256(Buffer.of(1), left, right);

const findings = [];
const finding = (index, what) => findings.push(`entry ${index}: ${what}`);

// ---- Leaves --------------------------------------------------------------------------------------------

class Malformed extends Error {}

function fail(what) {
  throw new Malformed(what);
}

function varint(bytes, at) {
  let value = 0n;
  for (let shift = 0n; ; shift += 7n) {
    if (at >= bytes.length) fail("it ends within a number");
    const byte = bytes[at++];
    value |= BigInt(byte & 0x7f) << shift;
    if (byte < 0x80) {
      if (byte === 0 && shift > 0n) fail("a number is not written as short as it can be");
      if (value >= 1n << 64n) fail("a number has more than 64 bits");
      return [value, at];
    }
    if (shift > 63n) fail("a number has more than 64 bits");
  }
}

// Fields in order: [number, type, value].
function fields(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    let tag, value;
    [tag, at] = varint(bytes, at);
    const [number, type] = [Number(tag >> 3n), Number(tag & 7n)];
    if (type === 0) [value, at] = varint(bytes, at);
    else if (type === 1) [value, at] = [bytes.subarray(at, at + 8), at + 8];
    else if (type === 2) {
      let length;
      [length, at] = varint(bytes, at);
      [value, at] = [bytes.subarray(at, at + Number(length)), at + Number(length)];
    } else fail(`field ${number} is of an unknown type`);
    if (at > bytes.length) fail("it ends within a field");
    found.push([number, type, value]);
  }
  return found;
}

const WIRE = { number: 0, fixed: 1 };

// One message by its table; `skip` are fields that are kept beside. Gives number → value (or list of values).
function message(bytes, table, skip = new Set()) {
  const got = new Map();
  let last = 0;
  for (const [number, type, value] of fields(bytes)) {
    const kind = table[number] ?? fail(`field ${number} is unknown`);
    if (skip.has(number)) fail(`field ${number} is in the entry and beside it`);
    const list = kind === "texts" || kind === "maps" || kind.startsWith("list ");
    if (number < last || (number === last && !list)) fail("its fields are not in order");
    last = number;
    if (type !== (WIRE[kind.replace("?", "")] ?? 2)) fail(`field ${number} is of another type`);
    const read = one(kind, value);
    if (list) got.set(number, [...(got.get(number) ?? []), read]);
    else got.set(number, read);
  }
  for (const [number, kind] of Object.entries(table)) {
    if (kind !== "maps") continue;
    const keys = (got.get(Number(number)) ?? []).map((pair) => Buffer.from(pair.get(1) ?? ""));
    if (keys.some((key, at) => at > 0 && Buffer.compare(keys[at - 1], key) >= 0)) fail("a map is not in order");
  }
  return got;
}

function one(kind, value) {
  const optional = kind.endsWith("?");
  if (kind === "number" && value === 0n) fail("a number that is 0 is written");
  if (kind === "number" || kind === "fixed") return value;
  const name = kind.replace("?", "");
  const element = kind === "texts" || kind === "maps" || kind.startsWith("list ");
  if (!optional && !element && value.length === 0) fail("something empty is written");
  if (name === "text" || kind === "texts") {
    try {
      return strict.decode(value);
    } catch {
      fail("a text is not UTF-8");
    }
  }
  if (name === "bytes") return value;
  return message(value, MESSAGES[kind === "maps" ? "map" : name.replace("list ", "")]);
}

// The entry of a leaf. `payload(field)` gives what is kept beside, or nothing.
function decode(leaf, payload) {
  if (leaf[0] !== 1) fail("its version is not known");
  const kind = KINDS[leaf[1]] ?? fail("its kind is not known");
  const table = { 1: "fixed", 2: "bytes", 3: "number", 15: "list beside" };
  const names = {};
  kind.slice(1).forEach((field, at) => {
    const [name, type] = field.split(" ");
    [names[at + 4], table[at + 4]] = [name, type];
  });
  const commitments = fields(leaf.subarray(2)).filter(([number]) => number === 15).map(([, , value]) => message(value, MESSAGES.beside));
  const numbers = commitments.map((commitment) => Number(commitment.get(1)));
  if (numbers.some((number, at) => !names[number] || (at > 0 && numbers[at - 1] >= number))) fail("what is beside is not in order");
  const got = message(leaf.subarray(2), table, new Set(numbers));
  if (!got.has(1)) fail("it has no time");
  if (got.has(3) && !got.has(2)) fail("it has a number in a session, and no session");
  if (got.has(2) && got.get(2).length !== 16) fail("its session is no id");
  const entry = { kind: kind[0], session: got.get(2)?.toString("hex"), number: got.get(3) ?? 0n, missing: [], payloads: 0 };
  for (const [number, name] of Object.entries(names)) entry[name] = got.get(Number(number));
  for (const commitment of commitments) {
    const field = Number(commitment.get(1));
    const kept = payload(field);
    if (!kept) {
      entry.missing.push(names[field]);
      continue;
    }
    entry.payloads += 1;
    const content = kept.subarray(16);
    if (BigInt(content.length) !== (commitment.get(2) ?? 0n)) fail(`the payload of ${names[field]} has another length`);
    if (!sha256(kept).equals(commitment.get(3))) fail(`the payload of ${names[field]} is not the one that was written`);
    if (content.length === 0) fail("something empty is beside");
    if (WIRE[table[field]] !== undefined) fail(`${names[field]} cannot be beside`);
    entry[names[field]] = one(table[field], content);
  }
  return entry;
}

// ---- Files ---------------------------------------------------------------------------------------------

function path(prefix, index, width) {
  let digits = String(index).padStart(3, "0");
  digits = digits.padStart(Math.ceil(digits.length / 3) * 3, "0");
  const groups = digits.match(/.{3}/g);
  return `${prefix}/${groups.map((group, at) => (at < groups.length - 1 ? `x${group}` : group)).join("/")}${width < WIDTH ? `.p/${width}` : ""}`;
}

function read(dir, prefix, index, width) {
  const names = width < WIDTH ? [path(prefix, index, width), path(prefix, index, WIDTH)] : [path(prefix, index, WIDTH)];
  const found = names.map((name) => join(dir, name)).find((name) => existsSync(name));
  return found && readFileSync(found);
}

function payloads(dir, bundle, width) {
  const file = read(dir, "payload", bundle, width) ?? Buffer.alloc(0);
  const found = new Map();
  for (let at = 0; at < file.length; ) {
    const end = at + 6 <= file.length ? at + 6 + file.readUInt32BE(at + 2) : Infinity;
    if (end > file.length) {
      finding(bundle * WIDTH, "the file of its payloads is cut off");
      break;
    }
    found.set(`${file[at]} ${file[at + 1]}`, file.subarray(at + 6, end));
    at = end;
  }
  return found;
}

// ---- Signatures ----------------------------------------------------------------------------------------

function parseKey(text) {
  const match = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/=]+)$/.exec(text ?? "");
  const bytes = match && Buffer.from(match[3], "base64");
  if (!bytes || bytes.length !== 33 || bytes[0] !== 1) return undefined;
  const id = sha256(match[1], "\n", bytes).subarray(0, 4);
  if (id.toString("hex") !== match[2]) return undefined;
  const der = Buffer.concat([Buffer.from("302a300506032b6570032100", "hex"), bytes.subarray(1)]);
  return { text, name: match[1], id, public: createPublicKey({ key: der, format: "der", type: "spki" }) };
}

function parseNote(note) {
  const at = note.lastIndexOf("\n\n");
  if (at < 0 || !note.endsWith("\n")) return undefined;
  return { text: note.slice(0, at + 1), lines: note.slice(at + 2, -1).split("\n") };
}

function signedBy(note, key) {
  return note.lines.some((line) => {
    const [dash, name, encoded] = line.split(" ");
    if (dash !== "—" || name !== key.name) return false;
    const bytes = Buffer.from(encoded ?? "", "base64");
    return bytes.subarray(0, 4).equals(key.id) && verifySignature(null, Buffer.from(note.text), key.public, bytes.subarray(4));
  });
}

function parseCheckpoint(note) {
  const parsed = parseNote(note);
  const [origin, size, root] = parsed?.text.split("\n") ?? [];
  if (!origin || !/^(0|[1-9][0-9]*)$/.test(size ?? "") || Buffer.from(root ?? "", "base64").length !== 32) return undefined;
  return { note: parsed, origin, size: Number(size), root: Buffer.from(root, "base64") };
}

// ---- The log -------------------------------------------------------------------------------------------

class Log {
  constructor(dir, size) {
    Object.assign(this, { dir, size, edge: [], count: 0, roots: new Map(), sessions: new Map(), keys: [], said: [], gone: [], lacking: [] });
    Object.assign(this, { seen: 0, payloads: 0, tiles: new Map(), connections: new Map() });
    this.roots.set(0, sha256());
  }

  tileHash(level, index) {
    const tile = Math.floor(index / WIDTH);
    if (this.tiles.get(level)?.tile !== tile) {
      const items = Math.floor(this.size / WIDTH ** level);
      this.tiles.set(level, { tile, content: read(this.dir, `tile/${level}`, tile, Math.min(WIDTH, items - tile * WIDTH)) });
    }
    const content = this.tiles.get(level).content;
    const hash = content?.subarray((index % WIDTH) * 32, (index % WIDTH) * 32 + 32);
    return hash?.length === 32 ? hash : undefined;
  }

  push(index, hash) {
    let [node, height] = [hash, 0];
    this.edge.push([0, hash]);
    this.compare(index, 0, index, hash);
    while (this.edge.length > 1 && this.edge.at(-2)[0] === this.edge.at(-1)[0]) {
      const [, right] = this.edge.pop();
      const [, left] = this.edge.pop();
      [node, height] = [nodeHash(left, right), height + 1];
      this.edge.push([height, node]);
      if (height % 8 === 0) this.compare(index, height / 8, Math.floor(index / 2 ** height), node);
    }
    this.count = index + 1;
  }

  compare(index, level, place, hash) {
    const known = this.tileHash(level, place);
    if (!known) finding(index, `tile/${level} has no hash here`);
    else if (!known.equals(hash)) finding(level ? place * WIDTH ** level : index, `it is not what tile/${level} has here`);
  }

  root() {
    return this.edge.map(([, hash]) => hash).reduceRight((right, left) => (right ? nodeHash(left, right) : left), undefined) ?? sha256();
  }

  take(index, leaf, payload) {
    if (leaf.length === 0) {
      this.gone.push(index);
      const hash = this.tileHash(0, index);
      if (hash) this.push(index, hash);
      else finding(index, "it was destroyed, and its hash is missing");
      return;
    }
    this.push(index, leafHash(leaf));
    try {
      this.entry(index, decode(leaf, payload));
    } catch (error) {
      if (!(error instanceof Malformed)) throw error;
      finding(index, error.message);
    }
  }

  entry(index, entry) {
    this.payloads += entry.payloads;
    if (entry.session) this.number(index, entry);
    if (entry.kind === "session_started") this.connections.set(entry.session, entry.target?.get(1) ?? "");
    if (entry.kind === "log_key") this.key(index, entry);
    if (entry.kind === "destroyed") this.said.push(entry);
    const connection = this.connections.get(entry.session);
    entry.missing.forEach((field) => this.lacking.push({ index, kind: entry.kind, field, connection }));
    if (entry.kind === "session_ended") this.connections.delete(entry.session);
  }

  number(index, entry) {
    const known = this.sessions.get(entry.session);
    if (!known) this.seen += 1;
    const [next, gone] = known ?? [0n, 0];
    if (entry.number < next) finding(index, `the session's entry ${entry.number} comes after ${next - 1n}`);
    else if (entry.number - next > BigInt(this.gone.length - gone)) finding(index, `the session's entries ${next} to ${entry.number - 1n} are missing`);
    if (entry.kind === "session_ended") this.sessions.delete(entry.session);
    else this.sessions.set(entry.session, [entry.number + 1n, this.gone.length]);
  }

  key(index, entry) {
    const [key, last] = [parseKey(entry.key), this.keys.at(-1)];
    if (!key || key.name !== entry.origin) return finding(index, "the log's key cannot be read, or has another name than the log");
    if (last?.key.text === key.text) return undefined;
    if (last) {
      const note = parseNote(entry.endorsement ?? "");
      const named = note?.text === `sallyport log key\n${last.origin}\n${key.text}\n` && signedBy(note, last.key);
      if (entry.previous !== last.key.text || entry.origin !== last.origin || !named) return finding(index, "the key before has not endorsed this one");
    } else if (entry.previous !== undefined || entry.endorsement !== undefined) return finding(index, "the first key says that there was one before");
    return this.keys.push({ index, key, origin: entry.origin });
  }

  // What is not there must have been destroyed by a rule.
  explain() {
    const within = (said, index) => BigInt(index) >= (said.first ?? 0n) && BigInt(index) < (said.next ?? 0n);
    const list = (message) => message?.get(1) ?? [];
    for (const index of this.gone) {
      if (!this.said.some((said) => within(said, index) && list(said.fields).length === 0)) finding(index, "it is not there, and no entry says that it was destroyed");
    }
    for (const { index, kind, field, connection } of this.lacking) {
      const explains = (said) =>
        within(said, index) && list(said.fields).includes(field) && (list(said.kinds).length === 0 || list(said.kinds).includes(kind)) &&
        (said.connection === undefined || connection === undefined || said.connection === connection);
      if (!this.said.some(explains)) finding(index, `its ${field} is not there, and no entry says that it was destroyed`);
    }
  }

  bear(what, checkpoint) {
    const known = this.keys.filter((key) => key.index < checkpoint.size).at(-1);
    if (checkpoint.size > this.count) finding(this.count, `${what} has ${checkpoint.size} entries, and the log ${this.count}`);
    else if (!known || checkpoint.origin !== known.origin) finding(0, `${what} is another log's, or the log names no key`);
    else if (!signedBy(checkpoint.note, known.key)) finding(0, `${what} is not signed by the log's key`);
    else if (!this.roots.get(checkpoint.size)?.equals(checkpoint.root)) finding(0, `${what} has another root than its ${checkpoint.size} entries`);
    return known;
  }
}

function readAll(log, wanted) {
  for (let bundle = 0; bundle * WIDTH < log.size; bundle += 1) {
    const width = Math.min(WIDTH, log.size - bundle * WIDTH);
    const content = read(log.dir, "tile/entries", bundle, width) ?? Buffer.alloc(0);
    const beside = payloads(log.dir, bundle, width);
    let at = 0;
    for (let place = 0; place < width; place += 1) {
      const index = bundle * WIDTH + place;
      const end = at + 2 <= content.length ? at + 2 + content.readUInt16BE(at) : Infinity;
      if (end > content.length) return finding(index, `entries ${index} to ${bundle * WIDTH + width - 1} are missing`);
      log.take(index, content.subarray(at + 2, end), (field) => beside.get(`${place} ${field}`));
      if (log.count !== index + 1) return undefined;
      if (wanted.has(log.count)) log.roots.set(log.count, log.root());
      at = end;
    }
  }
  return undefined;
}

function main(args) {
  const [dir, known, earlier] = [args[0], [], []];
  for (let at = 1; at < args.length; at += 2) {
    const list = { "--key": known, "--earlier": earlier }[args[at]];
    if (!list || !args[at + 1]) return usage();
    list.push(args[at + 1]);
  }
  if (!dir) return usage();
  const claims = [["the checkpoint", join(dir, "checkpoint")], ...earlier.map((file) => [`the checkpoint in ${file}`, file])].map(([what, file]) => {
    const checkpoint = existsSync(file) ? parseCheckpoint(readFileSync(file, "utf8")) : undefined;
    if (!checkpoint) finding(0, `${what} cannot be read`);
    return [what, checkpoint];
  });
  const last = claims[0][1];
  if (findings.length > 0) return report();
  const log = new Log(dir, last.size);
  readAll(log, new Set(claims.map(([, checkpoint]) => checkpoint.size)));
  log.explain();
  const signer = claims.map(([what, checkpoint]) => log.bear(what, checkpoint))[0];
  for (const key of known.filter((text) => !log.keys.some(({ key }) => key.text === text))) finding(0, `${key} is not a key of this log`);
  return report({ entries: log.count, sessions: log.seen, payloads: log.payloads, withheld: log.lacking.length, origin: last.origin, key: signer?.key.text });
}

function report(summary) {
  findings.forEach((line) => console.log(line));
  if (findings.length > 0) process.exit(1);
  console.log(JSON.stringify(summary));
}

function usage() {
  console.error("usage: node verify.mjs DIR [--key KEY]… [--earlier FILE]…");
  process.exit(2);
}

main(process.argv.slice(2));
