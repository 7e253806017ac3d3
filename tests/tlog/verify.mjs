// An independent verifier for a published Sallyport audit log. Needs Node.js 20 and nothing else.
//
//   node verify.mjs DIR [--key KEY]… [--earlier FILE]…
//
//   DIR             the log's folder: `checkpoint`, `tile/`, `payload/`
//   --key KEY       a key (NAME+ID+KEY) that is known to be the log's
//   --earlier FILE  a checkpoint that was kept from earlier
//
// Exit status 0: the log holds, and one line of JSON says what it has (`payloads`: contents kept beside entries;
// `withheld`: those that are not there; `sealed`: those that are ciphertext, which it does not check). 1: it does not, with one line for each finding. 2: wrong usage.
//
// Written from two documents alone: docs/audit.md and crates/audit-store/FORMAT.md. "Step" is one of "Verifying" there.
// The log is read twice, bundle by bundle: first for what was destroyed, then for everything.

import { createHash, createPublicKey, verify } from 'node:crypto';
import { isUtf8 } from 'node:buffer';
import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';
import { join } from 'node:path';

const MOST_FINDINGS = 1000;
class Bad extends Error {}
class TooMany extends Error {}
const fail = (what) => { throw new Bad(what); };
const check = (holds, what) => holds || fail(what);
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest();
const node = (left, right) => sha256(Buffer.of(1), left, right);

class Findings {
  lines = [];
  add(place, what) {
    const where = typeof place === 'number' ? `entry ${place}` : place;
    this.lines.push(`${where}: ${what}`.replace(/[\x00-\x1f\x7f]/g, '?'));
    if (this.lines.length >= MOST_FINDINGS) throw new TooMany('too many findings, stopped');
  }
  at(place, work) { // what goes wrong in `work` becomes a finding
    try {
      return work();
    } catch (error) {
      if (error instanceof TooMany) throw error;
      this.add(place, error instanceof Bad ? error.message : `cannot be read: ${error.message}`);
      return undefined;
    }
  }
}

// ---- What leaves are made of (FORMAT.md). Fields are numbered from 1; those of kinds from 4, after the common ones.
// `?` optional, `*` a list, `a-b` a number from a to b that stands for a name.

const MESSAGES = `
pair       key=text value=text
texts      list=text*
expires    at=time
principal  kind=1-3 issuer=text subject=text tenant=text? application=text credential_id=text? aliases=text* roles=text* \
           claims=map expires=expires?
target     connection=text address=text database=text upstream_user=text owner=text? tags=map
parameter  value=bytes? format=0-1 type=number
parameters values=parameter*
operation  action=text object_kind=1-8 path=text* where=0-2
facts      operations=operation* unknown=text* kinds=text* attributes=map
details    map=map
beside     field=number length=number hash=hash`;

const KINDS = `
gateway_started version=text host=text
gateway_stopped reason=text
activated       what=text digest=text previous=text? difference=texts author=text?
reload_refused  what=text error=text
login_failed    source=text protocol=text label=text connection=text reason=text
session_started principal=principal target=target source=text protocol=text label=text application=text tls=text? \
                policy_version=text policies=texts
session_ended   reason=text requests=number bytes_in=number bytes_out=number
request         request=number kind=1-5 verdict=1-3 statement=bytes parameters=parameters facts=facts policies=texts \
                policy_version=text reason=text?
outcome         request=number status=1-5 code=bytes? tag=bytes? rows=number bytes=number duration_micros=number \
                columns_passed=number columns_masked=number columns_refused=number masked_classes=texts
approval        request=number step=1-5 by=text? reason=text? digest=text
administration  by=text action=text object=text details=details
log_read        by=text query=text
clock_jump      micros=number
heartbeat
log_key         origin=text key=text previous=text? endorsement=text? by=text
destroyed       rule=text by=text reason=text? first=number next=number connection=text? kinds=texts fields=texts contents=number`;

const utf8 = (bytes) => (isUtf8(bytes) ? bytes.toString() : fail('text that is not UTF-8'));
const sized = (size) => (bytes) => (bytes.length === size ? bytes : fail(`${bytes.length} bytes instead of ${size}`));
const messages = {};
const types = { // wire type; how to decode one of wire type 2; `always` there
  number: { wire: 0 }, time: { wire: 1, always: true }, text: { wire: 2, decode: utf8 }, bytes: { wire: 2, decode: (b) => b },
  uuid: { wire: 2, decode: sized(16) }, hash: { wire: 2, decode: sized(32), always: true },
};

function parseType(name) {
  const [, base, mark] = /^(.*?)([?*]?)$/.exec(name === 'map' ? 'pair*' : name);
  const [, least, most] = /^(\d)-(\d)$/.exec(base) ?? [];
  const type = least ? { wire: 0, least: +least, most: +most, always: least > 0 } : types[base] ?? messageType(base);
  return { ...type, always: type.always && !mark, optional: mark === '?', list: mark === '*', sorted: name === 'map' };
}

/** A message with a field that is always there cannot be empty, and so is always there itself. */
function messageType(name) {
  const always = Object.values(messages[name]).some((field) => field.always);
  return { wire: 2, always, decode: (bytes) => decodeFields(bytes, messages[name]) };
}

function parseFields(words, first) {
  return Object.fromEntries(words.map((word, i) => [first + i, { name: word.split('=')[0], ...parseType(word.split('=')[1]) }]));
}

const table = (lines) => lines.trim().split('\n').map((line) => line.trim().split(/\s+/));
for (const [name, ...fields] of table(MESSAGES)) messages[name] = parseFields(fields, 1);
const COMMON = { ...parseFields(['$time=time', '$session=uuid', '$number=number'], 1), ...parseFields(['$beside=beside*'], 15) };
const kinds = [undefined, ...table(KINDS).map(([name, ...fields]) => ({
  name,
  fields: { ...COMMON, ...parseFields(fields, 4) },
}))];

// ---- Strict decoding (step 3).

/** The varint at `at`, and where it ends. From 2^53 on it is a BigInt. */
function varint(bytes, at) {
  for (let i = 0, value = 0; ; i++) {
    const byte = bytes[at + i] ?? fail('a varint is cut off');
    check(i < 9 || byte <= 1, 'a varint of more than 64 bits');
    value = i < 7 ? value + (byte & 127) * 128 ** i : BigInt(value) + (BigInt(byte & 127) << BigInt(7 * i));
    if (byte >= 128) continue;
    check(byte > 0 || i === 0, 'a varint that is not the shortest');
    return [value <= Number.MAX_SAFE_INTEGER ? Number(value) : value, at + i + 1];
  }
}

/** The value of the field at `at`, and where it ends. */
function decodeValue(bytes, at, field) {
  if (field.wire === 1) return at + 8 <= bytes.length ? [bytes.readBigInt64LE(at), at + 8] : fail(`${field.name} is cut off`);
  const [value, next] = varint(bytes, at);
  check(value !== 0 || field.optional || field.list, `${field.name} is there and empty`);
  if (field.wire === 0) {
    check(!field.most || (value >= field.least && value <= field.most), `${field.name} ${value} stands for nothing`);
    return [value, next];
  }
  check(value <= bytes.length - next, `${field.name} is cut off`);
  return [field.decode(bytes.subarray(next, next + value)), next + value];
}

/** `beside` gives the numbers of the fields that are elsewhere. */
function decodeFields(bytes, fields, beside = () => []) {
  const out = {};
  for (let at = 0, last = 0; at < bytes.length;) {
    const [tag, start] = varint(bytes, at);
    const id = Math.floor(Number(tag) / 8);
    const field = fields[id] ?? fail(`unknown field ${id}`);
    check(Number(tag) % 8 === field.wire, `${field.name} has another type`);
    check(id > last || (id === last && field.list), `${field.name} is there twice, or out of order`);
    const [value, end] = decodeValue(bytes, start, field);
    if (field.list) (out[field.name] ??= []).push(value);
    else out[field.name] = value;
    [at, last] = [end, id];
  }
  const elsewhere = beside(out);
  for (const [id, field] of Object.entries(fields)) {
    if (field.always) check(out[field.name] !== undefined || elsewhere.includes(Number(id)), `${field.name} is not there`);
    if (field.sorted) checkSorted((out[field.name] ?? []).map(({ key = '' }) => Buffer.from(key)), field.name);
  }
  return out;
}

function checkSorted(keys, name) {
  for (let i = 1; i < keys.length; i++) check(Buffer.compare(keys[i - 1], keys[i]) < 0, `${name}: keys are not ascending`);
}

function decodeLeaf(leaf) {
  check(leaf.length >= 2 && leaf[0] === 1, 'of another version');
  const kind = kinds[leaf[1]] ?? fail(`unknown kind ${leaf[1]}`);
  const fields = decodeFields(leaf.subarray(2), kind.fields, (out) => checkBeside(kind, out));
  check(fields.$session || fields.$number === undefined, 'a number without a session');
  return { kind, fields, beside: fields.$beside ?? [] };
}

function checkBeside(kind, out) {
  const ids = (out.$beside ?? []).map(({ field = 0 }) => field);
  ids.forEach((id, i) => {
    const field = (id >= 4 && id <= 14 && kind.fields[id]) || fail(`beside: ${id} is no field of the kind`);
    check(i === 0 || id > ids[i - 1], 'beside: fields are not ascending');
    check(field.wire === 2 && out[field.name] === undefined, `beside: ${field.name} cannot be`);
    check(out.$beside[i].length !== undefined, `beside: ${field.name} is empty`);
  });
  return ids;
}

/** A leaf, with what is kept beside it (step 6). `missing`: the fields whose payload is not there. */
function decodeEntry({ index, leaf, records, read }, findings) {
  const entry = { ...decodeLeaf(leaf), missing: [], sealed: [] };
  for (const { field: id, length, hash } of entry.beside) {
    const field = entry.kind.fields[id];
    const record = records.find((r) => r.field === id);
    if (!record) entry.missing.push(field.name);
    else if (record.sealed) findings.at(index, () => {
      entry.sealed.push(field.name);
      check(!['log_key', 'destroyed'].includes(entry.kind.name), `payload of ${field.name}: sealed, and must not be`);
      check(record.length >= 58 && read(record)[0] === 1, `payload of ${field.name}: sealed in no form that is known`);
    });
    else findings.at(index, () => {
      check(record.length - 16 === length, `payload of ${field.name}: ${record.length - 16} bytes instead of ${length}`);
      const content = read(record);
      check(sha256(content).equals(hash), `payload of ${field.name}: not what the leaf commits to`);
      entry.fields[field.name] = field.decode(content.subarray(16));
    });
  }
  for (const { field } of records) {
    if (!entry.beside.some((b) => b.field === field)) findings.add(index, `field ${field}: a payload that no leaf speaks of`);
  }
  return entry;
}

// ---- Files (step 2).

function open(path) {
  try {
    return openSync(path, 'r');
  } catch (error) {
    return ['ENOENT', 'ENOTDIR'].includes(error.code) ? undefined : fail(error.message);
  }
}

/** Opens the partial file of `width`, or the full one; `surplus`: it may have more than is asked for. */
function openPart(dir, folder, index, width) {
  const digits = String(index);
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, '0').match(/\d{3}/g);
  const path = join(dir, folder, ...groups.slice(0, -1).map((group) => `x${group}`), groups.at(-1));
  const partial = width < 256 ? open(`${path}.p/${width}`) : undefined;
  const fd = partial ?? open(path);
  return fd === undefined ? undefined : { path, fd, length: fstatSync(fd).size, surplus: width < 256 && partial === undefined };
}

function readAt(fd, at, length) {
  const out = Buffer.alloc(length);
  check(readSync(fd, out, 0, length, at) === length, 'a file that became shorter');
  return out;
}

function readPart(dir, folder, index, width, most) {
  const file = openPart(dir, folder, index, width) ?? fail(`no file ${folder} ${index}, of width ${width}`);
  try {
    check(file.length <= most, `${file.path} is too long`);
    return { ...file, content: readAt(file.fd, 0, file.length) };
  } finally {
    closeSync(file.fd);
  }
}

/** The leaves of a bundle, as far as they are there; an empty one stands for an entry that was destroyed. */
function readBundle(dir, index, width, findings) {
  const leaves = [];
  findings.at(index * 256, () => {
    const { content, surplus } = readPart(dir, 'tile/entries', index, width, 256 * 65537);
    let at = 0;
    while (leaves.length < width) {
      const end = at + 2 <= content.length ? at + 2 + content.readUInt16BE(at) : Infinity;
      check(end <= content.length, `the bundle is cut off: it has ${leaves.length} entries instead of ${width}`);
      leaves.push(content.subarray(at + 2, end));
      at = end;
    }
    check(at === content.length || surplus, 'the bundle goes on after its last entry');
  });
  return leaves;
}

/** The payload records of a bundle, without their contents. */
function readRecords(file, first, width, findings) {
  const records = [];
  for (let at = 0, last = -1; at < file.length;) {
    const header = at + 6 <= file.length ? readAt(file.fd, at, 6) : fail('the payloads are cut off');
    const [place, field, length] = [header[0], header[1] & 127, header.readUInt32BE(2)];
    if (place >= width && file.surplus) break;
    findings.at(first + place, () => {
      check(place * 256 + field > last, `field ${field}: two payloads for it, or out of order`);
      check(place < width, `field ${field}: a payload that no leaf speaks of`);
      check(length >= 16 && at + 6 + length <= file.length, `field ${field}: the payload is cut off`);
      records.push({ place, field, length, at: at + 6, sealed: header[1] > 127 });
    });
    [at, last] = [at + 6 + length, Math.max(last, place * 256 + field)];
  }
  return records;
}

/** Every entry: {index, leaf, records, read}. `leaf` is undefined where the bundle ends before it. */
function* readEntries(dir, size, findings) {
  for (let first = 0; first < size; first += 256) {
    const width = Math.min(256, size - first);
    const leaves = readBundle(dir, first / 256, width, findings);
    const file = findings.at(first, () => openPart(dir, 'payload', first / 256, width));
    try {
      const records = (file && findings.at(first, () => readRecords(file, first, width, findings))) ?? [];
      const read = (record) => readAt(file.fd, record.at, record.length);
      for (let place = 0; place < width; place++) {
        yield { index: first + place, leaf: leaves[place], records: records.filter((r) => r.place === place), read };
      }
    } finally {
      if (file) closeSync(file.fd);
    }
  }
}

// ---- The tree (step 2).

class Tree {
  count = 0;
  complete = []; // the roots of the complete subtrees, from left to right
  tiles = []; // of each level, the one at hand
  constructor(dir, size, findings) {
    Object.assign(this, { dir, size, findings });
  }

  /** The hash that the tiles have; undefined if they do not (which is a finding, once for a tile). */
  published(level, index) {
    const at = Math.floor(index / 256);
    if (this.tiles[level]?.at !== at) this.tiles[level] = { at, hashes: this.readTile(level, at) };
    return this.tiles[level].hashes?.subarray((index % 256) * 32, (index % 256) * 32 + 32);
  }

  readTile(level, at) {
    const width = Math.min(256, Math.floor(this.size / 256 ** level) - at * 256);
    return this.findings.at(at * 256 ** (level + 1), () => {
      const { content, path, surplus } = readPart(this.dir, `tile/${level}`, at, width, 8192);
      check(content.length === (surplus ? 256 : width) * 32, `${path} has ${content.length} bytes`);
      return content;
    });
  }

  compare(level, index, hash) {
    if (this.published(level, index)?.equals(hash) === false) {
      this.findings.add(index * 256 ** level, `its hash is not the one that tile/${level} has`);
    }
  }

  add(hash) {
    let index = this.count++;
    this.compare(0, index, hash);
    for (let height = 1; index % 2 === 1; height++) {
      hash = node(this.complete.pop(), hash);
      index = (index - 1) / 2;
      if (height % 8 === 0) this.compare(height / 8, index, hash);
    }
    this.complete.push(hash);
  }

  root() {
    return this.count === 0 ? sha256() : this.complete.reduceRight((right, left) => node(left, right));
  }
}

// ---- Keys, signed notes, checkpoints (step 5).

function base64(text) {
  const bytes = Buffer.from(text, 'base64');
  return bytes.toString('base64') === text ? bytes : fail('not base64');
}

function parseKey(text) {
  const [, name, id, encoded] = /^([^+\s]+)\+([0-9a-f]{8})\+(.+)$/.exec(text) ?? fail('not a key');
  const bytes = base64(encoded);
  check(bytes.length === 33 && bytes[0] === 1, 'not an Ed25519 key');
  check(sha256(`${name}\n`, bytes).toString('hex', 0, 4) === id, 'a key with the id of another');
  const der = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), bytes.subarray(1)]);
  return { text, name, id, public: createPublicKey({ key: der, format: 'der', type: 'spki' }) };
}

/** A signed note of three lines. */
function parseNote(bytes) {
  const all = utf8(bytes).split('\n');
  check(all.length >= 6 && all.pop() === '' && all[3] === '', 'not three lines, an empty one, and signatures');
  check(!/[\x00-\x1f]/.test(all.join('')), 'control characters');
  const signatures = all.slice(4).map((line) => {
    const [, name, encoded] = /^\u2014 ([^\s+]+) (\S+)$/.exec(line) ?? fail('not a signature line');
    const content = base64(encoded);
    check(content.length > 4, 'a signature without a key id, or of nothing');
    return { name, id: content.toString('hex', 0, 4), content: content.subarray(4) };
  });
  return { lines: all.slice(0, 3), signatures };
}

/** `signer` must have signed, none of the other `keys` may have, and every line of a known key must verify. */
function checkSigned({ lines, signatures }, signer, keys) {
  const text = Buffer.from(`${lines.join('\n')}\n`);
  for (const { name, id, content } of signatures) {
    const key = keys.find((k) => k.name === name && k.id === id);
    if (!key) continue;
    check(content.length === 64 && verify(null, text, key.public, content), `the signature of key ${id} does not verify`);
    check(key === signer, `signed by another key of the log, ${id}`);
  }
  check(signatures.some(({ name, id }) => name === signer.name && id === signer.id), `not signed by the key ${signer.id}`);
}

function parseCheckpoint(path, place) {
  const note = parseNote(readFileSync(path));
  const [origin, size, root] = note.lines;
  check(/^sallyport\/[0-9a-f]{32}$/.test(origin), 'not the origin of a log');
  check(/^(0|[1-9]\d{0,15})$/.test(size) && Number.isSafeInteger(Number(size)), 'not a size');
  check(base64(root).length === 32, 'not a root');
  return { ...note, place, origin, size: Number(size), root: base64(root) };
}

// ---- What was destroyed (step 7).

/** The fields of all entries of kind `destroyed`. What is wrong with them is said in the second reading. */
function readDestroyed(dir, size) {
  const found = [];
  const quiet = new Findings();
  try {
    for (const raw of readEntries(dir, size, quiet)) {
      if (kinds[raw.leaf?.[1]]?.name === 'destroyed') quiet.at(raw.index, () => found.push(decodeEntry(raw, quiet).fields));
    }
  } catch (error) {
    if (!(error instanceof TooMany)) throw error;
  }
  return found.map(({ first = 0, next = 0, connection, contents = 0, ...of }) => (
    { first, next, connection, contents, kinds: of.kinds?.list, fields: of.fields?.list, alone: 0 }));
}

/** `session.connection` is undefined where it is not known any more: it is not checked then. */
function speaksOf(record, index, kind, field, session) {
  if (index < record.first || index >= record.next || !record.fields?.includes(field)) return false;
  if (record.kinds && !record.kinds.includes(kind)) return false;
  return record.connection === undefined || (session !== undefined && [undefined, record.connection].includes(session.connection));
}

/** Counts a content that is missing, of which these records speak. */
function charge(records, total) {
  if (records.length === 1) records[0].alone++;
  if (records.length > 0) total.missing++;
  return records.length > 0;
}

// ---- All of it.

class Verifier {
  keys = [];
  sessions = new Map();
  gone = 0; // entries that were destroyed, so far
  counts = { payloads: 0, sealed: 0, withheld: 0 };
  missing = { entries: { missing: 0 }, fields: { missing: 0 } };

  run(dir, known, earlier, findings) {
    this.findings = findings;
    const checkpoint = findings.at('checkpoint', () => parseCheckpoint(join(dir, 'checkpoint'), 'checkpoint'));
    if (!checkpoint) return undefined;
    const { size, origin } = checkpoint;
    this.origin = origin;
    this.tree = new Tree(dir, size, findings);
    this.destroyed = readDestroyed(dir, size);
    this.checkpoints = [checkpoint, ...earlier.flatMap((file) => this.readEarlier(file, checkpoint) ?? [])];
    this.reached();
    for (const raw of readEntries(dir, size, findings)) {
      this.entry(raw);
      this.reached();
    }
    this.excess();
    for (const c of this.checkpoints) if (c.signer) findings.at(c.place, () => checkSigned(c, c.signer, this.keys));
    const unknown = known.filter((key) => !this.keys.some(({ text }) => text === key));
    for (const key of unknown) findings.add('key', `not one of the log's: ${key}`);
    return { entries: size, sessions: this.sessions.size, ...this.counts, origin, key: this.keys.at(-1)?.text };
  }

  readEarlier(file, last) { // step 8
    return this.findings.at(`earlier ${file}`, () => {
      const checkpoint = parseCheckpoint(file, `earlier ${file}`);
      check(checkpoint.origin === last.origin, `of another log, ${checkpoint.origin}`);
      check(checkpoint.size <= last.size, `of ${checkpoint.size} entries, and the log has ${last.size}`);
      return checkpoint;
    });
  }

  reached() { // the checkpoints of as many entries as were read
    for (const checkpoint of this.checkpoints.filter(({ size }) => size === this.tree.count)) {
      checkpoint.signer = this.keys.at(-1);
      if (!checkpoint.signer) this.findings.add(checkpoint.place, 'its entries name no key');
      if (!this.tree.root().equals(checkpoint.root)) this.findings.add(checkpoint.place, 'its entries have another root');
    }
  }

  entry(raw) {
    const { index, leaf, records } = raw;
    if (!leaf?.length) return this.notThere(index, leaf, records);
    this.tree.add(sha256(Buffer.of(0), leaf));
    const entry = this.findings.at(index, () => decodeEntry(raw, this.findings));
    if (!entry) return undefined;
    const session = this.session(index, entry);
    this.payloads(index, entry, session);
    return entry.kind.name === 'log_key' ? this.findings.at(index, () => this.followKey(entry.fields)) : undefined;
  }

  notThere(index, leaf, records) {
    this.tree.add(this.tree.published(0, index) ?? Buffer.alloc(32));
    if (!leaf) return; // said of its bundle
    this.gone++;
    const speaking = this.destroyed.filter(({ first, next, fields }) => !fields && first <= index && index < next);
    if (!charge(speaking, this.missing.entries)) this.findings.add(index, 'it is not there, and no entry says that it was destroyed');
    if (records.length > 0) this.findings.add(index, 'a payload that no leaf speaks of');
  }

  payloads(index, { kind: { name }, beside, missing, sealed }, session) {
    this.counts.payloads += beside.length - missing.length - sealed.length;
    this.counts.sealed += sealed.length;
    this.counts.withheld += missing.length;
    for (const field of missing) {
      const may = !['log_key', 'destroyed'].includes(name);
      const speaking = may ? this.destroyed.filter((record) => speaksOf(record, index, name, field, session)) : [];
      if (!charge(speaking, this.missing.fields)) this.findings.add(index, `payload of ${field}: it is not there, and no entry says that it was destroyed`);
    }
  }

  excess() { // step 7: no more may be missing than was said
    for (const { first, next, contents, alone } of this.destroyed) {
      if (alone > Number(contents)) this.findings.add('destroyed', `${contents} of ${first} to ${next}, and ${alone} are missing`);
    }
    for (const [what, { missing }] of Object.entries(this.missing)) {
      const said = this.destroyed.filter(({ fields }) => !fields === (what === 'entries'));
      const sum = said.reduce((total, { contents }) => total + Number(contents), 0);
      if (missing > sum) this.findings.add('destroyed', `${sum} ${what} in all, and ${missing} are missing`);
    }
  }

  session(index, { kind, fields, missing, sealed }) { // step 4
    if (!fields.$session) return undefined;
    const id = fields.$session.toString('hex');
    const session = this.sessions.get(id) ?? { due: 0, gone: 0 };
    const number = Number(fields.$number ?? 0);
    if (number < session.due || number - session.due > this.gone - session.gone) {
      this.findings.add(index, `number ${number} of session ${id}, where ${session.due} is due`);
    }
    if (kind.name === 'session_started' && ![...missing, ...sealed].includes('target')) session.connection = fields.target?.connection ?? '';
    this.sessions.set(id, Object.assign(session, { due: number + 1, gone: this.gone }));
    return session;
  }

  followKey({ origin, key: text = '', previous, endorsement }) { // step 5
    const last = this.keys.at(-1);
    if (text === last?.text) return;
    const key = parseKey(text);
    this.keys.push(key);
    check(origin === this.origin && key.name === this.origin, 'a key of another origin');
    check(previous === last?.text, 'the key before is another');
    if (!last) return void check(endorsement === undefined, 'the first key is endorsed');
    const note = parseNote(Buffer.from(endorsement ?? ''));
    check(note.lines.join('\n') === `sallyport log key\n${origin}\n${text}`, 'the endorsement is of something else');
    checkSigned(note, last, [last]);
  }
}

function parseArguments(args) {
  const options = { dirs: [], '--key': [], '--earlier': [] };
  while (args.length > 0) {
    const arg = args.shift();
    if (!arg.startsWith('-')) options.dirs.push(arg);
    else if (Object.hasOwn(options, arg) && args.length > 0) options[arg].push(args.shift());
    else return undefined;
  }
  return options.dirs.length === 1 ? options : undefined;
}

function main() {
  const options = parseArguments(process.argv.slice(2));
  if (!options) {
    console.error('usage: node verify.mjs DIR [--key KEY]… [--earlier FILE]…');
    return 2;
  }
  const findings = new Findings();
  let result;
  try {
    result = findings.at('log', () => new Verifier().run(options.dirs[0], options['--key'], options['--earlier'], findings));
  } catch (error) {
    findings.lines.push(`log: ${error.message}`);
  }
  console.log(findings.lines.length > 0 ? findings.lines.join('\n') : JSON.stringify(result));
  return findings.lines.length > 0 ? 1 : 0;
}

process.exitCode = main();
