// node-postgres (pg), with pg-cursor and pg-copy-streams.
'use strict';

const assert = require('node:assert/strict');
const fs = require('node:fs');
const { Readable } = require('node:stream');
const { pipeline: pump } = require('node:stream/promises');
const { Client } = require('pg');
const Cursor = require('pg-cursor');
const { from: copyFrom, to: copyTo } = require('pg-copy-streams');

const DIRECT = process.env.DIRECT === '1';
const NAME = 'Ada Lovelace';
const EMAIL = 'ada.lovelace@example.com';
const CARD = '4111111111111111';
const TEN_MB = 10_000_000;

function options(more) {
  return {
    host: process.env.SP_HOST, port: Number(process.env.SP_PORT), user: process.env.SP_USER,
    password: process.env.SP_PASSWORD, database: process.env.SP_DB, connectionTimeoutMillis: 20_000,
    ssl: { ca: fs.readFileSync(process.env.SP_SSLROOTCERT, 'utf8'), rejectUnauthorized: true, servername: process.env.SP_HOST },
    ...more,
  };
}

async function connect(more) {
  const client = new Client(options(more));
  client.on('error', () => {});
  await client.connect();
  return client;
}

const behaviours = [];
const behaviour = (name, run) => behaviours.push({ name, run, policy: false });
const policy = (name, run) => behaviours.push({ name, run, policy: true });
// With a connection of its own.
const using = (run) => async () => {
  const client = await connect();
  try { await run(client); } finally { await client.end(); }
};

async function fails(promise, code) {
  try { await promise; } catch (error) { assert.equal(error.code, code, error.message); return error; }
  throw new Error(`no error, expected ${code}`);
}
function masked(email, card) {
  assert.match(String(email), /^a\*+@e\*+\.com$/);
  assert.match(String(card), /^\D+1111$/);
}
function hidden(data) {
  const text = typeof data === 'string' ? data : JSON.stringify(data);
  assert.ok(!text.includes(EMAIL) && !text.includes(CARD), 'a clear value is in the result');
}
const row = (result) => result.rows[0];

behaviour('connect_tls', using(async (c) => {
  assert.deepEqual(row(await c.query('SELECT 1 AS one')), { one: 1 });
  assert.equal(c.connection.stream.encrypted, true);
}));
behaviour('simple_query', using(async (c) => {
  const { rows } = await c.query('SELECT id, name FROM products ORDER BY id LIMIT 3');
  assert.deepEqual(rows.map((r) => r.id), [1, 2, 3]);
}));
behaviour('parameters', using(async (c) => {
  assert.equal(row(await c.query('SELECT name FROM customers WHERE id = $1 AND country = $2', [1, 'GB'])).name, NAME);
}));
behaviour('prepared_reexecution', using(async (c) => {
  for (const wanted of [1, 2, 3, 2]) {
    assert.equal(row(await c.query({ name: 'pick', text: 'SELECT id FROM products WHERE id = $1', values: [wanted] })).id, wanted);
  }
}));
behaviour('types_round_trip', using(async (c) => {
  for (const [kind, value] of [
    ['int2', 32767], ['int8', '9223372036854775807'], ['float8', 1.5e300], ['numeric', '12345678901234567890.123456789'],
    ['text', 'grüße, \u{1f980} \\ back'], ['varchar', ''], ['bool', true], ['bytea', Buffer.from([...Array(256).keys()])],
    ['timestamptz', new Date('2024-01-01T12:00:00Z')], ['uuid', '0f8fad5b-d9cb-469f-a165-70867728950e'],
    ['jsonb', { a: [1, null] }], ['int4[]', [1, 2, 3]], ['text[]', ['a', 'b,c', 'd"e']],
  ]) {
    assert.deepEqual(row(await c.query(`SELECT $1::${kind} AS v`, [value])).v, value, kind);
  }
  // Binary results, which node-postgres decodes for some types.
  assert.deepEqual(row(await c.query({ text: 'SELECT $1::int4 AS v, $2::text AS w', values: [7, 'x'], binary: true })), { v: 7, w: 'x' });
}));
behaviour('nulls', using(async (c) => {
  assert.deepEqual(row(await c.query("SELECT $1::int AS a, NULL::text AS b, '' AS c", [null])), { a: null, b: null, c: '' });
}));
behaviour('transaction_commit', using(async (c) => {
  await c.query('CREATE TEMP TABLE t (n int)');
  await c.query('BEGIN');
  await c.query('INSERT INTO t VALUES ($1)', [1]);
  await c.query('COMMIT');
  assert.equal((await c.query('SELECT n FROM t')).rowCount, 1);
}));
behaviour('transaction_rollback', using(async (c) => {
  await c.query('CREATE TEMP TABLE t (n int)');
  await c.query('BEGIN');
  await c.query('INSERT INTO t VALUES ($1)', [1]);
  await c.query('ROLLBACK');
  assert.equal((await c.query('SELECT n FROM t')).rowCount, 0);
}));
behaviour('savepoint', using(async (c) => {
  await c.query('CREATE TEMP TABLE t (n int)');
  await c.query('BEGIN');
  await c.query('SAVEPOINT a');
  await fails(c.query('SELECT 1/0'), '22012');
  await c.query('ROLLBACK TO a');
  await c.query('INSERT INTO t VALUES (2)');
  await c.query('COMMIT');
  assert.deepEqual((await c.query('SELECT n FROM t')).rows, [{ n: 2 }]);
}));
behaviour('error_keeps_session', using(async (c) => {
  await fails(c.query('SELECT 1 / $1::int', [0]), '22012');
  assert.equal(row(await c.query('SELECT 2 AS n')).n, 2);
}));
behaviour('error_fields', using(async (c) => {
  const error = await fails(c.query("INSERT INTO products (sku, name, price) VALUES ('SKU-00001', 'x', 1)"), '23505');
  assert.deepEqual([error.constraint, error.table, error.schema], ['products_sku_key', 'products', 'public']);
}));
policy('denied_outside_transaction', using(async (c) => {
  await fails(c.query('SELECT * FROM secrets'), '42501');
  await fails(c.query('SELECT * FROM secrets WHERE id = $1', [1]), '42501');
  await fails(c.query({ name: 'named', text: 'SELECT * FROM secrets WHERE id = $1', values: [1] }), '42501');
  assert.equal(row(await c.query('SELECT 3 AS n')).n, 3);
}));
policy('denied_inside_transaction', using(async (c) => {
  await c.query('CREATE TEMP TABLE t (n int)');
  for (const values of [undefined, [1]]) {
    await c.query('BEGIN');
    await c.query('INSERT INTO t VALUES (1)');
    await fails(c.query(`SELECT * FROM secrets WHERE id = ${values ? '$1' : '1'}`, values), '42501');
    await fails(c.query('SELECT 1'), '25P02');
    await c.query('ROLLBACK');
    assert.equal((await c.query('SELECT * FROM t')).rowCount, 0);
  }
}));
policy('masked_text', using(async (c) => {
  let r = row(await c.query('SELECT email, card_number FROM customers WHERE id = 1'));
  masked(r.email, r.card_number);
  r = row(await c.query('SELECT email AS name, card_number AS id FROM customers x WHERE x.id = $1', [1]));
  masked(r.name, r.id);
  hidden((await c.query('SELECT * FROM customers ORDER BY id LIMIT 100')).rows);
}));
policy('masked_binary', using(async (c) => {
  const r = row(await c.query({ text: 'SELECT email, card_number FROM customers WHERE id = $1', values: [1], binary: true }));
  masked(r.email, r.card_number);
}));
policy('masked_prepared', using(async (c) => {
  for (let n = 0; n < 3; n += 1) {
    const r = row(await c.query({ name: 'pick', text: 'SELECT email, card_number FROM customers WHERE id = $1', values: [1] }));
    masked(r.email, r.card_number);
  }
}));
policy('masked_cursor', using(async (c) => {
  const cursor = c.query(new Cursor('SELECT email, card_number FROM customers ORDER BY id'));
  const first = await cursor.read(1);
  masked(first[0].email, first[0].card_number);
  hidden(await cursor.read(50));
  await cursor.close();
}));
policy('masked_returning', using(async (c) => {
  const r = row(await c.query('UPDATE customers SET balance = balance WHERE id = $1 RETURNING email, card_number', [1]));
  masked(r.email, r.card_number);
}));
policy('masked_copy_out', using(async (c) => {
  const blocks = [];
  for await (const block of c.query(copyTo('COPY customers (email, card_number) TO STDOUT'))) blocks.push(block);
  const text = Buffer.concat(blocks).toString();
  hidden(text);
  assert.ok(text.includes('***@e***.com'));
}));
policy('masked_expression', using(async (c) => {
  for (const expression of ['lower(email)', "email || ''", 'row_to_json(customers)', 'array[email]']) {
    try { hidden((await c.query(`SELECT ${expression} FROM customers WHERE id = 1`)).rows); } catch (error) { assert.equal(error.code, '42501'); }
  }
}));
behaviour('large_result', using(async (c) => {
  const cursor = c.query(new Cursor("SELECT n, repeat('x', 50) FROM generate_series(1, 200000) n"));
  let count = 0;
  for (;;) {
    const rows = await cursor.read(5000);
    if (rows.length === 0) break;
    count += rows.length;
  }
  assert.equal(count, 200000);
  assert.equal((await c.query('SELECT n FROM generate_series(1, 200000) n')).rowCount, 200000);
}));
behaviour('copy_in_out', using(async (c) => {
  await c.query('CREATE TEMP TABLE t (n int, s text)');
  const lines = [...Array(10000).keys()].map((n) => `${n}\tline ${n}\n`);
  await pump(Readable.from(lines), c.query(copyFrom('COPY t FROM STDIN')));
  const blocks = [];
  for await (const block of c.query(copyTo('COPY t TO STDOUT'))) blocks.push(block);
  assert.equal(Buffer.concat(blocks).toString(), lines.join(''));
}));
behaviour('listen_notify', async () => {
  const listener = await connect();
  const speaker = await connect();
  const heard = new Promise((resolve) => { listener.on('notification', resolve); });
  await listener.query('LISTEN news');
  await speaker.query("NOTIFY news, 'hello'");
  const { channel, payload } = await heard;
  assert.deepEqual([channel, payload], ['news', 'hello']);
  await listener.end();
  await speaker.end();
});
behaviour('cancel', async () => {
  const c = await connect();
  const sleeping = c.query('SELECT pg_sleep(30)');
  setTimeout(() => {
    // As pg's own cancel does, but inside TLS, as libpq 17 does it, when the server wants TLS.
    const canceller = new Client(options());
    canceller.cancel(c, c.activeQuery || sleeping);
    const { connection } = canceller;
    connection.on('sslconnect', () => connection.cancel(c.processID, c.secretKey));
    connection.on('error', () => {});
  }, 500);
  await fails(sleeping, '57014');
  assert.equal(row(await c.query('SELECT 1 AS n')).n, 1);
  await c.end();
});
behaviour('pipeline', using(async (c) => {
  // node-postgres queues: the statements are sent one after the other, answers in order.
  const results = await Promise.all([...Array(500).keys()].map((n) => c.query('SELECT $1::int AS n', [n])));
  assert.deepEqual(results.map((r) => row(r).n), [...Array(500).keys()]);
}));
behaviour('multiple_results', using(async (c) => {
  const results = await c.query("SELECT 1 AS a; SELECT 'two' AS b; SELECT 3 AS c");
  assert.deepEqual(results.map((r) => r.rows), [[{ a: 1 }], [{ b: 'two' }], [{ c: 3 }]]);
}));
behaviour('long_value', using(async (c) => {
  const value = 'y'.repeat(TEN_MB);
  const r = row(await c.query('SELECT $1::text AS v, length($1) AS n', [value]));
  assert.equal(r.n, TEN_MB);
  assert.ok(r.v === value);
}));
behaviour('wrong_token', async () => {
  try { await connect({ password: 'wrong' }); } catch (error) { assert.ok(['28P01', '28000'].includes(error.code), error.message); return; }
  throw new Error('logged in with a wrong password');
});
policy('plain_refused', async () => {
  try { await connect({ ssl: false }); } catch (error) { assert.match(error.message, /TLS|SSL/); return; }
  throw new Error('a plain connection was accepted');
});

(async () => {
  const only = process.argv.slice(2);
  let passed = 0;
  let failed = 0;
  for (const { name, run, policy: needsGateway } of behaviours) {
    if ((needsGateway && DIRECT) || (only.length > 0 && !only.includes(name))) continue;
    let timer;
    const limit = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('120 s without an end')), 120_000); });
    try {
      await Promise.race([run(), limit]);
      passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAIL ${name}: ${String(error.message).replaceAll('\n', ' | ').slice(0, 600)}`);
    } finally { clearTimeout(timer); }
  }
  console.log(`${passed} passed, ${failed} failed, 0 skipped`);
  process.exit(failed ? 1 : 0);
})();
